import { readFile } from "node:fs/promises"

export interface User {
  readonly uid: number
  readonly gid: number
}

/** Postgres refuses to run as root, so root runs it as `postgres`, or as `nobody` where that user is missing. */
export const serverUser = async (): Promise<User | undefined> => {
  if (process.getuid?.() !== 0) {
    return undefined
  }
  const users = new Map(
    (await readFile("/etc/passwd", "utf8")).split("\n").map((line) => {
      const [name, , uid, gid] = line.split(":")
      return [name, { uid: Number(uid), gid: Number(gid) }] as const
    })
  )
  return users.get("postgres") ?? users.get("nobody")
}
