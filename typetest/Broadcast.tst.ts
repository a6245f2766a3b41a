/** Broadcast subscriptions: what they give, how their streams can fail, and what they need. */
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import * as SchemaGetter from "effect/SchemaGetter"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import { describe, expect, test } from "tstyche"
import * as Broadcast from "../src/Broadcast.ts"
import type { Broker } from "../src/Broker.ts"
import type * as Event from "../src/Event.ts"
import * as Topic from "../src/Topic.ts"

class Order extends Schema.Class<Order>("Order")({ orderId: Schema.String }) {}
const Orders = Topic.make("orders", { schema: Order })

class Secret extends Context.Service<Secret, { readonly open: (text: string) => string }>()("Secret") {}
const Sealed = Topic.make("sealed", {
  schema: Schema.String.pipe(Schema.decodeTo(Schema.String, {
    decode: SchemaGetter.transformEffect((text: string) => Secret.use((secret) => Effect.succeed(secret.open(text)))),
    encode: SchemaGetter.passthrough()
  }))
})

describe("a subscription", () => {
  test("needs a broker and a scope, and its stream cannot fail by default", () => {
    expect(Broadcast.subscribe(Orders)).type.toBe<
      Effect.Effect<Broadcast.Subscription<Order>, Broadcast.BroadcastError, Broker | Scope.Scope>
    >()
    expect(Broadcast.subscribe(Orders, { key: "a", buffer: 10 })).type.toBe<
      Effect.Effect<Broadcast.Subscription<Order>, Broadcast.BroadcastError, Broker | Scope.Scope>
    >()
    expect(Broadcast.subscribe(Orders, { strategy: "dropping" })).type.toBe<
      Effect.Effect<Broadcast.Subscription<Order>, Broadcast.BroadcastError, Broker | Scope.Scope>
    >()
  })

  test("that may be too slow says so in the type of its stream", () => {
    expect(Broadcast.subscribe(Orders, { strategy: "fail" })).type.toBe<
      Effect.Effect<
        Broadcast.Subscription<Order, Broadcast.BroadcastError>,
        Broadcast.BroadcastError,
        Broker | Scope.Scope
      >
    >()
    const strategy = "fail" as Broadcast.Strategy
    expect(Effect.flatMap(Broadcast.subscribe(Orders, { strategy }), Stream.runDrain)).type.toBe<
      Effect.Effect<void, Broadcast.BroadcastError, Broker | Scope.Scope>
    >()
  })

  test("is a stream of the topic's events", () => {
    expect<Broadcast.Subscription<Order>>().type.toBeAssignableTo<Stream.Stream<Event.Event<Order>>>()
    expect(Stream.unwrap(Broadcast.subscribe(Orders))).type.toBe<
      Stream.Stream<Event.Event<Order>, Broadcast.BroadcastError, Broker>
    >()
  })

  test("needs what decoding needs", () => {
    expect(Broadcast.subscribe(Sealed)).type.toBe<
      Effect.Effect<Broadcast.Subscription<string>, Broadcast.BroadcastError, Secret | Broker | Scope.Scope>
    >()
  })

  test("filters by the decoded event", () => {
    expect(Broadcast.subscribe).type.toBeCallableWith(Orders, {
      filter: (event: Event.Event<Order>) => event.payload.orderId === "a"
    })
    expect(Broadcast.subscribe(Orders, { filter: (event) => event.payload.orderId === "a" })).type.toBe<
      Effect.Effect<Broadcast.Subscription<Order>, Broadcast.BroadcastError, Broker | Scope.Scope>
    >()
    expect(Broadcast.subscribe).type.not.toBeCallableWith(Orders, { strategy: "blocking" })
    expect(Broadcast.subscribe).type.not.toBeCallableWith(Orders, { key: 1 })
  })
})
