/** One Kafka node: its storage, its process, and what can happen to it. */
import { execFile } from "node:child_process"
import { mkdir, writeFile } from "node:fs/promises"
import { join } from "node:path"
import { promisify } from "node:util"
import { type Child, launch, type LaunchOptions } from "../child.ts"
import { waitUntil } from "../waitUntil.ts"
import type { Certificate } from "./certificate.ts"
import { type Distribution, javaArgs } from "./distribution.ts"
import { answers } from "./handshake.ts"
import { type NodeAddress, serverProperties } from "./properties.ts"

const run = promisify(execFile)

export interface KafkaNode {
  readonly id: number
  readonly broker: string
  /** Of the process that runs now, or ran last. */
  readonly pid: () => number
  /** Starts it (again), with the same storage and ports; waits until it answers. */
  readonly start: () => Promise<void>
  /** SIGTERM: hands its partitions over, then ends. */
  readonly stop: () => Promise<void>
  /** Sends `signal` (default SIGKILL) and waits until the node has ended. */
  readonly kill: (signal?: NodeJS.Signals) => Promise<void>
  /** SIGSTOP: connections stay open, nothing answers. */
  readonly pause: () => void
  readonly resume: () => void
}

export interface NodeOptions {
  readonly kafka: Distribution
  readonly address: NodeAddress
  readonly cluster: ReadonlyArray<NodeAddress>
  readonly folder: string
  readonly acls?: boolean | undefined
  readonly certificate?: Certificate | undefined
  readonly lifetime: LaunchOptions["lifetime"]
  readonly temporaryFolder: string | undefined
  readonly jvmArgs?: ReadonlyArray<string> | undefined
}

/** 16 bytes in base64url, as `kafka-storage random-uuid` prints them. */
const clusterId = Buffer.from("effect-events/id").toString("base64url")

/** A node whose storage is formatted. `start` it. */
export const makeNode = async (options: NodeOptions): Promise<KafkaNode> => {
  const { address, folder, kafka } = options
  const broker = `127.0.0.1:${address.port}`
  const properties = join(folder, "server.properties")
  await mkdir(folder, { recursive: true })
  await writeFile(properties, serverProperties(address, options.cluster, join(folder, "log"), options))
  await run(
    "java",
    javaArgs(kafka, "kafka.tools.StorageTool", [
      "format",
      "--ignore-formatted",
      "--cluster-id",
      clusterId,
      "--config",
      properties
    ])
  )

  let child: Child | undefined
  const current = (): Child => {
    if (child === undefined) {
      throw new Error(`Kafka node ${address.id} was never started`)
    }
    return child
  }

  return {
    id: address.id,
    broker,
    pid: () => current().pid,
    start: async () => {
      if (child?.isRunning()) {
        return
      }
      child = await launch("java", [...options.jvmArgs ?? [], ...javaArgs(kafka, "kafka.Kafka", [properties])], {
        logFile: join(folder, "kafka.log"),
        lifetime: options.lifetime,
        temporaryFolder: options.temporaryFolder
      })
      await waitUntil(`Kafka node ${address.id}`, child, () => answers([broker], { nodeId: address.id }))
    },
    stop: () => current().stop(),
    kill: async (signal = "SIGKILL") => {
      const { exited, signal: send } = current()
      send(signal)
      await exited()
    },
    pause: () => current().signal("SIGSTOP"),
    resume: () => current().signal("SIGCONT")
  }
}
