/** Broadcast subscriptions on the in-memory broker. */
import * as Memory from "../../src/Layers/Memory.ts"
import { broadcastSuite } from "../suites/broadcast/index.ts"

broadcastSuite("Memory", Memory.layerBrokerWith({ autoCreate: false }), {
  clock: "live",
  events: 5_000,
  addPartitions: (topic, count) => Memory.MemoryBroker.use((memory) => memory.addPartitions(topic, count)),
  deleteTopic: (topic) => Memory.MemoryBroker.use((memory) => memory.deleteTopic(topic))
})
