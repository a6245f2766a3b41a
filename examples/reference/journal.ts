/** Prints what happens, and lets the program wait for it. */
import { Context, Data, Effect, Layer, Stream, SubscriptionRef } from "effect"

export class JournalTimeout extends Data.TaggedError("JournalTimeout")<{
  readonly what: string
  readonly orderIds: ReadonlyArray<string>
}> {
  override get message() {
    return `Not all of ${this.orderIds.join(", ")} were ${this.what} within a minute`
  }
}

export class Journal extends Context.Service<Journal, {
  readonly write: (what: string, orderId: string, detail: string) => Effect.Effect<void>
  /** Waits until `what` was written of each of these orders; fails after a minute. */
  readonly until: (what: string, orderIds: ReadonlyArray<string>) => Effect.Effect<void, JournalTimeout>
}>()("examples/reference/Journal") {
  static readonly layer = Layer.effect(
    Journal,
    Effect.map(SubscriptionRef.make<ReadonlySet<string>>(new Set()), (written) =>
      Journal.of({
        write: (what, orderId, detail) =>
          Effect.andThen(
            print(`  ${what.padEnd(9)} ${orderId.padEnd(4)} ${detail}`),
            SubscriptionRef.update(written, (entries) => new Set([...entries, `${what} ${orderId}`]))
          ),
        until: (what, orderIds) =>
          SubscriptionRef.changes(written).pipe(
            Stream.filter((entries) => orderIds.every((orderId) => entries.has(`${what} ${orderId}`))),
            Stream.runHead,
            Effect.timeoutOrElse({
              duration: "1 minute",
              orElse: () => Effect.fail(new JournalTimeout({ what, orderIds }))
            }),
            Effect.asVoid
          )
      }))
  )
}

export const print = (line: string) => Effect.sync(() => process.stdout.write(`${line}\n`))
