/** `npm run build`: src to dist, from nothing, so that no file of a deleted source stays. */
import { spawnSync } from "node:child_process"
import { rmSync } from "node:fs"

rmSync("dist", { recursive: true, force: true })
process.exit(spawnSync("tsc", ["-b", "tsconfig.build.json"], { stdio: "inherit" }).status ?? 1)
