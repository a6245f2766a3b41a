/** Builds the package as npm would publish it, and checks whether others can use it: declarations, publint, attw. */
import { execFileSync, spawnSync } from "node:child_process"
import { globSync, mkdtempSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"

const run = (command: string, args: ReadonlyArray<string>): void => {
  const { status } = spawnSync(command, args, { stdio: "inherit" })
  if (status !== 0) {
    process.exit(status ?? 1)
  }
}

/** The modules behind the wildcard in "exports", which attw does not expand. */
const entryPoints = (): Array<string> =>
  globSync("src/**/*.ts")
    .filter((file) => !file.includes("/internal/") && file !== "src/index.ts")
    .map((file) => file.replace(/^src(.*)[.]ts$/, ".$1"))

run("node", ["scripts/build.ts"])
const folder = mkdtempSync(join(tmpdir(), "effect-events-package-"))
process.once("exit", () => rmSync(folder, { recursive: true, force: true }))
const packed = execFileSync("npm", ["pack", "--ignore-scripts", "--json", "--pack-destination", folder], {
  encoding: "utf8",
  stdio: ["ignore", "pipe", "ignore"]
})
const tarball = join(folder, JSON.parse(packed)[0].filename)
// Users may check the declarations of their libraries: ours must hold by themselves, with all that they name. Those of
// internals that they do not name may stand on a client whose own declarations do not hold (@platformatic/kafka 2.12).
run("tsc", [
  "--noEmit",
  "--skipLibCheck",
  "false",
  "--strict",
  "--module",
  "nodenext",
  "--target",
  "es2022",
  "--types",
  "node",
  "--ignoreConfig",
  ...globSync("dist/**/*.d.ts").filter((file) => !file.includes("/internal/"))
])
run("publint", ["run", tarball, "--strict"])
run("attw", [tarball, "--profile", "esm-only", "--include-entrypoints", ...entryPoints()])
