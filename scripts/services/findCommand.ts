import { existsSync } from "node:fs"
import { join } from "node:path"
import { Unavailable } from "./unavailable.ts"

/** The path of a program; servers are often in folders that are not in a user's PATH. */
export const findCommand = (name: string): string => {
  const folders = [...(process.env.PATH ?? "").split(":"), "/usr/sbin", "/usr/local/sbin", "/usr/local/bin"]
  const folder = folders.find((candidate) => existsSync(join(candidate, name)))
  if (folder === undefined) {
    throw new Unavailable(`${name} is not installed`)
  }
  return join(folder, name)
}
