/** Consumers: what they need follows from the handler and the mode; what fails in the handler reaches its policy. */
import * as Context from "effect/Context"
import * as Data from "effect/Data"
import * as Effect from "effect/Effect"
import type * as Layer from "effect/Layer"
import * as Schema from "effect/Schema"
import * as SchemaGetter from "effect/SchemaGetter"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import { describe, expect, test } from "tstyche"
import * as Batching from "../src/Batching.ts"
import type { Broker } from "../src/Broker.ts"
import * as Consumer from "../src/Consumer.ts"
import type { ConsumerGroup } from "../src/ConsumerGroup.ts"
import type * as Event from "../src/Event.ts"
import * as FailurePolicy from "../src/FailurePolicy.ts"
import type { MessageStore } from "../src/MessageStore.ts"
import * as Outbox from "../src/Outbox.ts"
import * as Topic from "../src/Topic.ts"

class Order extends Schema.Class<Order>("Order")({ orderId: Schema.String }) {}
const Orders = Topic.make("orders", { schema: Order })
const Invoices = Topic.make("invoices", { schema: Schema.Struct({ invoiceId: Schema.String }) })

class Mailer extends Context.Service<Mailer, { readonly send: (to: string) => Effect.Effect<void, MailFailed> }>()(
  "Mailer"
) {}
class Ledger extends Context.Service<Ledger, { readonly book: Effect.Effect<void> }>()("Ledger") {}
class MailFailed extends Data.TaggedError("MailFailed")<{ readonly code: number }> {}

const mail = (event: Event.Event<Order>) => Mailer.use((mailer) => mailer.send(event.payload.orderId))
const book = () => Ledger.use((ledger) => ledger.book)
const scoped = () => Effect.addFinalizer(() => Effect.void)
const publishing = (event: Event.Event<Order>) => Outbox.publish(Invoices, { invoiceId: event.payload.orderId })

declare const runInGroup: <A, E>(effect: Effect.Effect<A, E, Broker | MessageStore | ConsumerGroup>) => void

describe("what a consumer needs", () => {
  test("idempotent: the handler's services, a group and a broker", () => {
    expect(Consumer.idempotent(Orders, () => Effect.void)).type.toBe<
      Consumer.Consumer<ConsumerGroup | Broker>
    >()
    expect(Consumer.idempotent(Orders, mail)).type.toBe<Consumer.Consumer<Mailer | ConsumerGroup | Broker>>()
    expect(Consumer.idempotentBatch(Orders, book)).type.toBe<
      Consumer.Consumer<Ledger | ConsumerGroup | Broker>
    >()
  })

  test("exactlyOnce: a store in place of the transaction", () => {
    expect(Consumer.exactlyOnce(Orders, publishing)).type.toBe<
      Consumer.Consumer<ConsumerGroup | Broker | MessageStore>
    >()
    expect(Consumer.exactlyOnce(Orders, (event) => Effect.andThen(publishing(event), mail(event)))).type.toBe<
      Consumer.Consumer<Mailer | ConsumerGroup | Broker | MessageStore>
    >()
    expect(Consumer.exactlyOnceBatch(Orders, (events) => publishing(events[0]))).type.toBe<
      Consumer.Consumer<ConsumerGroup | Broker | MessageStore>
    >()
  })

  test("broadcast: no group", () => {
    expect(Consumer.broadcast(Orders, mail)).type.toBe<Consumer.Consumer<Mailer | Broker>>()
    expect(Consumer.broadcastBatch(Orders, () => Effect.void)).type.toBe<Consumer.Consumer<Broker>>()
  })

  test("a scope per attempt is provided in every mode", () => {
    expect(Consumer.idempotent(Orders, scoped)).type.toBe<Consumer.Consumer<ConsumerGroup | Broker>>()
    expect(Consumer.exactlyOnce(Orders, scoped)).type.toBe<
      Consumer.Consumer<ConsumerGroup | Broker | MessageStore>
    >()
    expect(Consumer.broadcast(Orders, scoped)).type.toBe<Consumer.Consumer<Broker>>()
    expect<Effect.Services<ReturnType<typeof scoped>>>().type.toBe<Scope.Scope>()
  })

  test("only exactlyOnce provides a transaction: elsewhere, publishing in it does not run", () => {
    expect(Consumer.idempotent(Orders, publishing)).type.toBe<
      Consumer.Consumer<Outbox.Transaction | ConsumerGroup | Broker>
    >()
    expect(runInGroup).type.not.toBeCallableWith(Consumer.idempotent(Orders, publishing))
    expect(runInGroup).type.not.toBeCallableWith(Consumer.broadcast(Orders, publishing))
    expect(runInGroup).type.toBeCallableWith(Consumer.exactlyOnce(Orders, publishing))
    expect(runInGroup).type.toBeCallableWith(
      Consumer.idempotent(Orders, (event) => Outbox.transaction(publishing(event)))
    )
  })

  test("a handler whose services nobody provides does not run", () => {
    expect(runInGroup).type.not.toBeCallableWith(Consumer.idempotent(Orders, mail))
    expect(runInGroup).type.toBeCallableWith(
      Consumer.idempotent(Orders, mail).pipe(Effect.provideService(Mailer, { send: () => Effect.void }))
    )
  })

  test("it is an Effect that never succeeds, and fails only with ConsumerError", () => {
    const consumer = Consumer.idempotent(Orders, mail)
    expect<Effect.Success<typeof consumer>>().type.toBe<never>()
    expect<Effect.Error<typeof consumer>>().type.toBe<Consumer.ConsumerError>()
  })

  test("the services that decode the topic's payload are asked for", () => {
    class Secret extends Context.Service<Secret, { readonly open: (text: string) => string }>()("Secret") {}
    const schema = Schema.String.pipe(Schema.decodeTo(Schema.String, {
      decode: SchemaGetter.transformEffect((text: string) => Secret.use((secret) => Effect.succeed(secret.open(text)))),
      encode: SchemaGetter.passthrough()
    }))
    const Secrets = Topic.make("secrets", { schema })
    expect(Consumer.idempotent(Secrets, () => Effect.void)).type.toBe<
      Consumer.Consumer<Secret | ConsumerGroup | Broker>
    >()
    expect(Consumer.exactlyOnce(Secrets, () => Effect.void)).type.toBe<
      Consumer.Consumer<Secret | ConsumerGroup | Broker | MessageStore>
    >()
    expect(Consumer.broadcast(Secrets, () => Effect.void)).type.toBe<Consumer.Consumer<Secret | Broker>>()
  })
})

describe("what a handler gets", () => {
  test("the event with the topic's payload, or a batch of them that is never empty", () => {
    void Consumer.idempotent(Orders, (event) => {
      expect(event).type.toBe<Event.Event<Order>>()
      return Effect.void
    })
    void Consumer.exactlyOnceBatch(Orders, (events) => {
      expect(events[0]).type.toBe<Event.Event<Order>>()
      expect(events).type.toBe<readonly [Event.Event<Order>, ...Array<Event.Event<Order>>]>()
      return Effect.void
    })
  })

  test("a handler of another payload is refused", () => {
    const other = (_: Event.Event<{ readonly invoiceId: string }>) => Effect.void
    expect(Consumer.idempotent<typeof Order, never, never>).type.not.toBeCallableWith(Orders, other)
    expect(Consumer.idempotent).type.toBeCallableWith(Invoices, other)
  })

  test("a handler that returns no Effect is refused", () => {
    expect(Consumer.idempotent).type.not.toBeCallableWith(Orders, () => 1)
    expect(Consumer.idempotent).type.not.toBeCallableWith(Orders, () => Promise.resolve())
  })

  test("batch limits belong to batch forms", () => {
    expect(Consumer.idempotentBatch).type.toBeCallableWith(Orders, () => Effect.void, { batch: { maxSize: 5 } })
    expect(Consumer.idempotent).type.not.toBeCallableWith(Orders, () => Effect.void, { batch: { maxSize: 5 } })
  })
})

describe("what a failure policy gets", () => {
  test("an inline handler's error type, in predicates beside a spread policy", () => {
    void Consumer.idempotent(Orders, mail, {
      onFailure: {
        ...FailurePolicy.save(),
        permanent: (error) => {
          expect(error).type.toBe<MailFailed>()
          return error.code === 550
        }
      }
    })
    void Consumer.idempotent(Orders, () => Effect.fail(new MailFailed({ code: 1 })), {
      onFailure: {
        ...FailurePolicy.block(),
        ignore: (error) => {
          expect(error).type.toBe<MailFailed>()
          return true
        }
      }
    })
  })

  test("the same in the other modes and in batches", () => {
    const permanent = (error: MailFailed) => error.code === 550
    void Consumer.exactlyOnce(Orders, mail, {
      onFailure: { ...FailurePolicy.save(), permanent: (error) => permanent(error) }
    })
    void Consumer.exactlyOnceBatch(Orders, (events) => mail(events[0]), {
      onFailure: { ...FailurePolicy.save(), permanent: (error) => permanent(error) }
    })
    void Consumer.broadcast(Orders, mail, {
      onFailure: { ...FailurePolicy.discard(), permanent: (error) => permanent(error) }
    })
  })

  test("a union of errors, so that each can be told apart", () => {
    class Other extends Data.TaggedError("Other")<{}> {}
    void Consumer.idempotent(Orders, (event) => Effect.andThen(mail(event), Effect.fail(new Other())), {
      onFailure: {
        ...FailurePolicy.save(),
        permanent: (error) => {
          expect(error).type.toBe<MailFailed | Other>()
          return error._tag === "Other"
        }
      }
    })
  })

  test("the error within a failure that names its culprits", () => {
    class Other extends Data.TaggedError("Other")<{}> {}
    void Consumer.idempotentBatch(
      Orders,
      (events) =>
        Effect.andThen(
          mail(events[0]),
          Effect.fail(Batching.failed([events[0]], new Other()))
        ),
      {
        onFailure: {
          ...FailurePolicy.save(),
          permanent: (error) => {
            expect(error).type.toBe<MailFailed | Other>()
            return error._tag === "Other"
          }
        }
      }
    )
    void Consumer.exactlyOnceBatch(Orders, (events) => Effect.fail(Batching.failed(events, new Other())), {
      onFailure: {
        ...FailurePolicy.save(),
        ignore: (error) => {
          expect(error).type.toBe<Other>()
          return true
        }
      }
    })
    void Consumer.broadcastBatch(Orders, (events) => Effect.fail(Batching.failed(events, new Other())), {
      onFailure: {
        ...FailurePolicy.discard(),
        ignore: (error) => {
          expect(error).type.toBe<Other>()
          return true
        }
      }
    })
  })

  test("limits of a group and of the process", () => {
    expect(Consumer.layer("group", [Consumer.idempotent(Orders, () => Effect.void)], { concurrency: 4 })).type.toBe<
      Layer.Layer<never, Consumer.ConsumerError, Broker>
    >()
    expect(Consumer.layerProcessLimit(4)).type.toBe<Layer.Layer<never, Consumer.ConsumerError>>()
    expect<Effect.Success<typeof Batching.Closed>>().type.toBe<Batching.CloseReason | undefined>()
  })

  test("a ready-made policy fits every handler; one for another error does not", () => {
    expect(FailurePolicy.save()).type.toBeAssignableTo<FailurePolicy.FailurePolicy<MailFailed>>()
    class Other extends Data.TaggedError("Other")<{ readonly reason: string }> {}
    const forOther: FailurePolicy.FailurePolicy<Other> = {
      ...FailurePolicy.save(),
      permanent: (error) => error.reason === "x"
    }
    expect(Consumer.idempotent<typeof Order, MailFailed, Mailer>).type.not.toBeCallableWith(Orders, mail, {
      onFailure: forOther
    })
  })
})

describe("what combinations need", () => {
  const bill = Consumer.exactlyOnce(Orders, publishing, { name: "bill" })
  const notify = Consumer.idempotent(Orders, mail, { name: "notify" })
  const show = Consumer.broadcast(Orders, book)

  test("Consumer.layer: all of it but the group, which it names", () => {
    expect(Consumer.layer("group", [bill, notify, show])).type.toBe<
      Layer.Layer<never, Consumer.ConsumerError, Broker | MessageStore | Mailer | Ledger>
    >()
    expect(Consumer.layer("group", [notify])).type.toBe<
      Layer.Layer<never, Consumer.ConsumerError, Broker | Mailer>
    >()
  })

  test("Consumer.all: all of it, the group included", () => {
    expect(Consumer.all([bill, notify])).type.toBe<
      Effect.Effect<never, Consumer.ConsumerError, Broker | MessageStore | Mailer | ConsumerGroup>
    >()
    expect(Consumer.all([show])).type.toBe<Effect.Effect<never, Consumer.ConsumerError, Broker | Ledger>>()
  })

  test("inGroup: names the group, and nothing else", () => {
    expect(notify.pipe(Consumer.inGroup("group"))).type.toBe<
      Effect.Effect<never, Consumer.ConsumerError, Broker | Mailer>
    >()
  })

  test("Consumer.layer takes consumers only", () => {
    expect(Consumer.layer).type.not.toBeCallableWith("group", [Effect.never])
    expect(Consumer.layer).type.not.toBeCallableWith("group", bill)
  })
})

describe("Consumer.stream", () => {
  test("is a stream of committable events that its sink takes", () => {
    const stream = Consumer.stream(Orders)
    expect(stream).type.toBe<
      Stream.Stream<Consumer.Committable<Order>, Consumer.ConsumerError, ConsumerGroup | Broker>
    >()
    expect(Stream.run(stream, Consumer.commit)).type.toBe<
      Effect.Effect<void, Consumer.ConsumerError, ConsumerGroup | Broker>
    >()
  })

  test("by itself it is a stream of events, which its sink does not take", () => {
    const stream = Consumer.stream(Orders, { ack: "auto", name: "pipe" })
    expect(stream).type.toBe<
      Stream.Stream<Event.Event<Order>, Consumer.ConsumerError, ConsumerGroup | Broker>
    >()
    expect(
      Stream.run<
        Consumer.Committable<Order>,
        Consumer.ConsumerError,
        ConsumerGroup | Broker,
        void,
        unknown,
        never,
        never
      >
    )
      .type.not.toBeCallableWith(stream, Consumer.commit)
  })

  test("by hand is what it is without a word, and there is no third way", () => {
    expect(Consumer.stream(Orders, { ack: "manual" })).type.toBe<
      Stream.Stream<Consumer.Committable<Order>, Consumer.ConsumerError, ConsumerGroup | Broker>
    >()
    expect(Consumer.stream<typeof Order>).type.not.toBeCallableWith(Orders, { ack: "never" })
  })
})
