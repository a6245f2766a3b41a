/** A relay of `relay-scale`: runs until it is told to stop. */
import { NodeRuntime } from "@effect/platform-node"
import { Layer } from "effect"
import { Outbox } from "effect-events"
import { postgresAt } from "./databases.ts"
import { quiet } from "./harness.ts"

const { layer } = postgresAt(process.env.HOME_OF_TABLES!)

Outbox.layerRelay().pipe(Layer.provide(layer), Layer.launch, quiet, NodeRuntime.runMain)
