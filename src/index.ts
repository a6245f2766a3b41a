/**
 * Event-driven services with Effect: typed topics, a transactional outbox, and
 * idempotent, exactly-once and broadcast consumers.
 *
 * @since 0.1.0
 */
export * as Batching from "./Batching.ts"
export * as Broadcast from "./Broadcast.ts"
export * as Broker from "./Broker.ts"
export * as Codec from "./Codec.ts"
export * as Consumer from "./Consumer.ts"
export * as ConsumerGroup from "./ConsumerGroup.ts"
export * as DeadLetter from "./DeadLetter.ts"
export * as Event from "./Event.ts"
export * as FailurePolicy from "./FailurePolicy.ts"
export * as Health from "./Health.ts"
export * as MessageStore from "./MessageStore.ts"
export * as Outbox from "./Outbox.ts"
export * as Publisher from "./Publisher.ts"
export * as Topic from "./Topic.ts"
