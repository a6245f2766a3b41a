/**
 * How many rows the next read takes: as many as fit into 8 MiB, judged by the
 * rows of late, since a statement limits rows and not bytes. Pure and mutable.
 *
 * Rows that grew are believed at once, and rows that shrank halfway each time;
 * before anything is known a read is small. So a single read goes beyond its
 * share where large rows follow small ones, and the next one does not.
 *
 * @internal
 */

const maxBytes = 8 * 1024 * 1024
const firstRows = 64

export class ReadSize {
  private readonly most: number
  private rowBytes = maxBytes / firstRows

  /** `most` rows are read at once, however small they are. */
  constructor(most: number) {
    this.most = most
  }

  get limit(): number {
    return Math.max(1, Math.min(this.most, Math.floor(maxBytes / this.rowBytes)))
  }

  /** Tells what a read brought. */
  learn(rows: number, bytes: number): void {
    if (rows > 0) this.rowBytes = Math.max(1, bytes / rows, this.rowBytes / 2)
  }
}
