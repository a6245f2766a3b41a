/** Writes the archive of the classes that a broker loads, by running one broker from start to stop. */
import { existsSync } from "node:fs"
import { rename, rm } from "node:fs/promises"
import { freePort } from "../ports.ts"
import { temporaryFolder } from "../temporaryFolder.ts"
import type { Distribution } from "./distribution.ts"
import { makeNode } from "./node.ts"

export const archiveClasses = async (kafka: Distribution): Promise<void> => {
  if (existsSync(kafka.classArchive)) {
    return
  }
  // Under a name of its own first: another process may be doing the same.
  const partial = `${kafka.classArchive}-${process.pid}`
  const folder = await temporaryFolder("kafka-classes")
  try {
    const address = {
      id: 1,
      port: await freePort(),
      controllerPort: await freePort(),
      saslPort: undefined,
      tlsPort: undefined
    }
    const node = await makeNode({
      kafka,
      address,
      cluster: [address],
      folder,
      lifetime: "parent",
      temporaryFolder: folder,
      jvmArgs: [`-XX:ArchiveClassesAtExit=${partial}`]
    })
    await node.start()
    await node.stop()
    // Some builds of Java cannot write one; brokers then start without.
    await rename(partial, kafka.classArchive).catch(() => {})
  } finally {
    await rm(folder, { recursive: true, force: true })
  }
}
