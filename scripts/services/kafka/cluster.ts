/**
 * Real Kafka for tests: one node, or three that can be killed, paused and
 * restarted one by one.
 *
 * ```ts
 * const cluster = await startKafka({ nodes: 3 })
 * await cluster.nodes[0]!.kill() // SIGKILL; the others take over
 * await cluster.nodes[0]!.start() // same storage, same port
 * await cluster.stop()
 * ```
 */
import { mkdir, rm } from "node:fs/promises"
import { join } from "node:path"
import type { LaunchOptions } from "../child.ts"
import { freePort } from "../ports.ts"
import { temporaryFolder } from "../temporaryFolder.ts"
import { makeCertificate } from "./certificate.ts"
import { archiveClasses } from "./classArchive.ts"
import { distribution } from "./distribution.ts"
import { type KafkaNode, makeNode } from "./node.ts"
import type { NodeAddress } from "./properties.ts"

export interface KafkaOptions {
  /** Port of the first node. Default: a free one. */
  readonly port?: number | undefined
  readonly nodes?: 1 | 3 | undefined
  /** Kept by `stop`. Default: a temporary folder, removed by `stop`. */
  readonly dataDir?: string | undefined
  /** Adds a listener that asks for a name and a password (`saslUser` in properties.ts). */
  readonly sasl?: boolean | undefined
  /** Adds a listener that speaks TLS and asks for the same. */
  readonly tls?: boolean | undefined
  /** Whoever comes by the SASL listener needs a grant for everything. Default: everybody may do everything. */
  readonly acls?: boolean | undefined
  /** `"detached"`: outlives this process. Default: `"parent"`. */
  readonly lifetime?: LaunchOptions["lifetime"] | undefined
}

export interface KafkaCluster {
  readonly brokers: Array<string>
  /** Addresses that ask for a password; empty without `sasl`. */
  readonly saslBrokers: Array<string>
  /** Addresses that speak TLS; empty without `tls`. */
  readonly tlsBrokers: Array<string>
  /** What clients of those have to trust, as PEM; `undefined` without `tls`. */
  readonly ca: string | undefined
  readonly nodes: ReadonlyArray<KafkaNode>
  readonly dataDir: string
  /** Ends all nodes at once, without handing anything over. */
  readonly stop: () => Promise<void>
}

export const startKafka = async (options: KafkaOptions = {}): Promise<KafkaCluster> => {
  const kafka = await distribution()
  await archiveClasses(kafka)
  const temporary = options.dataDir === undefined ? await temporaryFolder("kafka") : undefined
  const dataDir = temporary ?? options.dataDir!
  const cluster = await chooseAddresses(options)
  await mkdir(dataDir, { recursive: true })
  const certificate = options.tls ? await makeCertificate(dataDir) : undefined
  const nodes = await Promise.all(
    cluster.map((address) =>
      makeNode({
        kafka,
        address,
        cluster,
        folder: join(dataDir, `node-${address.id}`),
        acls: options.acls,
        certificate,
        lifetime: options.lifetime ?? "parent",
        temporaryFolder: temporary
      })
    )
  )
  const stop = async () => {
    await Promise.all(nodes.map((node) => node.kill()))
    if (temporary !== undefined) {
      await rm(temporary, { recursive: true, force: true })
    }
  }
  try {
    await Promise.all(nodes.map((node) => node.start()))
  } catch (error) {
    await stop()
    throw error
  }
  return {
    brokers: nodes.map((node) => node.broker),
    saslBrokers: addressesOf(cluster.map(({ saslPort }) => saslPort)),
    tlsBrokers: addressesOf(cluster.map(({ tlsPort }) => tlsPort)),
    ca: certificate?.ca,
    nodes,
    dataDir,
    stop
  }
}

const addressesOf = (ports: ReadonlyArray<number | undefined>): Array<string> =>
  ports.flatMap((port) => port === undefined ? [] : [`127.0.0.1:${port}`])

const chooseAddresses = (options: KafkaOptions): Promise<Array<NodeAddress>> =>
  Promise.all(
    Array.from({ length: options.nodes ?? 1 }, async (_, index) => ({
      id: index + 1,
      port: (index === 0 ? options.port : undefined) ?? await freePort(),
      controllerPort: await freePort(),
      saslPort: options.sasl ? await freePort() : undefined,
      tlsPort: options.tls ? await freePort() : undefined
    }))
  )
