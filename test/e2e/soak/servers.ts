/** The servers of a soak, and what happens to them: three brokers, of which a minority is away at a time, or all. */
import * as Effect from "effect/Effect"
import { type KafkaCluster, startKafka } from "../../../scripts/services/kafka/cluster.ts"
import type { KafkaNode } from "../../../scripts/services/kafka/node.ts"
import { type PostgresServer, startPostgres } from "../../../scripts/services/postgres/server.ts"
import type { BrokerAccident } from "./plan.ts"

export interface Servers {
  readonly kafka: KafkaCluster
  readonly postgres: PostgresServer
}

/** Starts them; they end with the scope. */
export const start = (brokers: 1 | 3) =>
  Effect.acquireRelease(
    Effect.all({
      kafka: Effect.promise(() => startKafka({ nodes: brokers })),
      postgres: Effect.promise(() => startPostgres())
    }, { concurrency: 2 }),
    ({ kafka, postgres }) => Effect.promise(() => Promise.all([kafka.stop(), postgres.stop()]))
  )

const away = (
  how: (node: KafkaNode) => Effect.Effect<unknown>,
  back: (node: KafkaNode) => Effect.Effect<unknown>,
  nodes: ReadonlyArray<KafkaNode>,
  forMillis: number
) =>
  Effect.forEach(nodes, how, { concurrency: "unbounded" }).pipe(
    Effect.andThen(Effect.sleep(forMillis)),
    Effect.ensuring(Effect.forEach(nodes, back, { concurrency: "unbounded" }))
  )

const kill = (node: KafkaNode) => Effect.promise(() => node.kill())
const restart = (node: KafkaNode) => Effect.promise(() => node.start())

/** Carries out an accident; the server answers again when it returns. Says what it did. */
export const suffer = ({ kafka, postgres }: Servers, accident: BrokerAccident): Effect.Effect<string> => {
  const { downMillis } = accident
  const length = `for ${downMillis} ms`
  if (accident._tag === "outage") {
    return Effect.as(away(kill, restart, kafka.nodes, downMillis), `all brokers were dead ${length}`)
  }
  if (accident._tag === "killDatabase") {
    return Effect.promise(() => postgres.kill()).pipe(
      Effect.andThen(Effect.sleep(downMillis)),
      Effect.ensuring(Effect.promise(() => postgres.start())),
      Effect.as(`the database was dead ${length}`)
    )
  }
  const node = kafka.nodes[Math.floor(accident.pick * kafka.nodes.length)]!
  const name = `broker ${node.id}`
  switch (accident._tag) {
    case "killBroker":
      return Effect.as(away(kill, restart, [node], downMillis), `${name} was killed, and dead ${length}`)
    case "restartBroker":
      return Effect.as(
        away((node) => Effect.promise(() => node.stop()), restart, [node], downMillis),
        `${name} was stopped, and away ${length}`
      )
    case "freezeBroker":
      return Effect.as(
        away((node) => Effect.sync(() => node.pause()), (node) => Effect.sync(() => node.resume()), [node], downMillis),
        `${name} was frozen ${length}`
      )
  }
}
