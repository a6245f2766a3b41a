/** The `server.properties` of one node: broker and controller in one process. */
import type { Certificate } from "./certificate.ts"

export interface NodeAddress {
  readonly id: number
  readonly port: number
  readonly controllerPort: number
  /** Present when the cluster has a listener that asks for a password. */
  readonly saslPort: number | undefined
  /** Present when the cluster has a listener that speaks TLS and asks for a password. */
  readonly tlsPort: number | undefined
}

/** Who may use the SASL and TLS listeners. */
export const saslUser = { username: "alice", password: "alice-secret" } as const

export const serverProperties = (
  node: NodeAddress,
  nodes: ReadonlyArray<NodeAddress>,
  logFolder: string,
  { acls = false, certificate }: {
    readonly acls?: boolean | undefined
    /** Required with a `tlsPort`. */
    readonly certificate?: Certificate | undefined
  }
): string => {
  const login =
    `org.apache.kafka.common.security.plain.PlainLoginModule required user_${saslUser.username}="${saslUser.password}";`
  const replicas = nodes.length
  const inSync = Math.max(1, replicas - 1)
  const listeners = [`PLAIN://127.0.0.1:${node.port}`]
  if (node.saslPort !== undefined) {
    listeners.push(`SASL://127.0.0.1:${node.saslPort}`)
  }
  if (node.tlsPort !== undefined) {
    listeners.push(`TLS://127.0.0.1:${node.tlsPort}`)
  }
  return Object.entries({
    "process.roles": "broker,controller",
    "node.id": node.id,
    "controller.quorum.voters": nodes.map((n) => `${n.id}@127.0.0.1:${n.controllerPort}`).join(","),
    "controller.listener.names": "CONTROLLER",
    "inter.broker.listener.name": "PLAIN",
    "listeners": [...listeners, `CONTROLLER://127.0.0.1:${node.controllerPort}`].join(","),
    "advertised.listeners": listeners.join(","),
    "listener.security.protocol.map": "PLAIN:PLAINTEXT,CONTROLLER:PLAINTEXT,SASL:SASL_PLAINTEXT,TLS:SASL_SSL",
    "sasl.enabled.mechanisms": "PLAIN",
    "listener.name.sasl.plain.sasl.jaas.config": login,
    "listener.name.tls.plain.sasl.jaas.config": login,
    ...(certificate === undefined
      ? {}
      : {
        "ssl.keystore.type": "PKCS12",
        "ssl.keystore.location": certificate.keystore,
        "ssl.keystore.password": certificate.password
      }),
    "log.dirs": logFolder,
    // Those of the plain listener may do everything, the SASL user only what it is granted.
    ...(acls
      ? {
        "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
        "super.users": "User:ANONYMOUS"
      }
      : {}),

    "auto.create.topics.enable": false,
    "num.partitions": 3,
    "default.replication.factor": replicas,
    "min.insync.replicas": inSync,
    "offsets.topic.num.partitions": 4,
    "offsets.topic.replication.factor": replicas,
    "transaction.state.log.num.partitions": 4,
    "transaction.state.log.replication.factor": replicas,
    "transaction.state.log.min.isr": inSync,
    "share.coordinator.state.topic.num.partitions": 1,
    "share.coordinator.state.topic.replication.factor": replicas,
    "share.coordinator.state.topic.min.isr": inSync,

    // A group is ready as soon as its first member joins.
    "group.initial.rebalance.delay.ms": 0,
    // How long the others wait before they take over from a dead broker. A
    // broker alone waits that long for itself when it is restarted after a kill.
    "broker.session.timeout.ms": replicas > 1 ? 6000 : 3000,
    "broker.heartbeat.interval.ms": replicas > 1 ? 2000 : 500,
    // A leader that was moved is moved back soon, while everything runs.
    "leader.imbalance.check.interval.seconds": 10,
    // Compaction within seconds, and without the default 128 MB of heap.
    "log.cleaner.backoff.ms": 1000,
    "log.cleaner.dedupe.buffer.size": 4 * 1024 * 1024
  }).map(([key, value]) => `${key}=${value}\n`).join("")
}
