/** Handles one event with KafkaJS: `coldStartTwin.js BROKERS TOPIC GROUP`. */
import { Kafka, logLevel } from "kafkajs"
import { writeSync } from "node:fs"

const [brokers, topic, groupId] = process.argv.slice(2)

const consumer = new Kafka({ brokers: brokers.split(","), clientId: "bench", logLevel: logLevel.NOTHING })
  .consumer({ groupId })

await consumer.connect()
await consumer.subscribe({ topic, fromBeginning: true })
await consumer.run({
  eachMessage: async ({ message }) => {
    const { orderId } = JSON.parse(message.value.toString())
    writeSync(3, JSON.stringify({ orderId, cpu: process.cpuUsage() }))
    process.exit()
  }
})
