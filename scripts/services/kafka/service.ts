import type { Service } from "../service.ts"
import { startKafka } from "./cluster.ts"
import { answers } from "./handshake.ts"

export const kafka: Service = {
  name: "kafka",
  variable: "KAFKA_BROKERS",
  defaultUrls: ["127.0.0.1:9092"],
  defaultPort: 9092,
  stopSignal: "SIGTERM",
  answers: (brokers) => answers(brokers.split(",")),
  start: async (options) => {
    const cluster = await startKafka(options)
    return { url: cluster.brokers.join(","), pid: cluster.nodes[0]!.pid(), folder: cluster.dataDir, stop: cluster.stop }
  },
  howToGet: "install Java 17 and Maven (Debian: apt install openjdk-17-jre-headless maven), or run " +
    "`docker compose up -d kafka`, or set KAFKA_BROKERS=host:port"
}
