/**
 * Who wants an event: subscribers by key, and those who want every one.
 *
 * The insight: a key is looked up, not compared. Ten thousand connections that
 * each follow one key cost one look-up per event. Pure.
 *
 * @internal
 */

const nobody: ReadonlySet<never> = new Set<never>()

export class Audience<S> {
  /** Those without a key: they want every event. */
  readonly everything = new Set<S>()
  private readonly byKey = new Map<string, Set<S>>()

  get isEmpty(): boolean {
    return this.everything.size === 0 && this.byKey.size === 0
  }

  /** Whether a record's key has to be read at all. */
  get hasKeys(): boolean {
    return this.byKey.size > 0
  }

  add(subscriber: S, key: string | undefined): void {
    if (key === undefined) {
      this.everything.add(subscriber)
      return
    }
    const same = this.byKey.get(key)
    if (same === undefined) this.byKey.set(key, new Set([subscriber]))
    else same.add(subscriber)
  }

  remove(subscriber: S, key: string | undefined): void {
    this.everything.delete(subscriber)
    const same = key === undefined ? undefined : this.byKey.get(key)
    if (key === undefined || same === undefined) return
    same.delete(subscriber)
    if (same.size === 0) this.byKey.delete(key)
  }

  /** Those who follow this key. One look-up. */
  following(key: string): ReadonlySet<S> {
    return this.byKey.get(key) ?? nobody
  }
}
