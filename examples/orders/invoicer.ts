/** The consumer as a process of its own, for `--crash`. */
import { NodeServices } from "@effect/platform-node"
import { Layer } from "effect"
import { Consumer } from "effect-events"
import { runMain } from "../support/runMain.ts"
import { IssueInvoice } from "./domain.ts"
import * as Environments from "./environments.ts"
import { logging } from "./logging.ts"

const run = process.argv[2]!

const Main = Consumer.layer("billing", [IssueInvoice]).pipe(
  Layer.provide(Environments.kafka(run)),
  Layer.provide(NodeServices.layer),
  Layer.provide(logging)
)

// If whoever started this process dies, its end of the pipe closes: stop as on SIGTERM.
process.stdin.on("end", () => process.kill(process.pid, "SIGTERM")).resume()

runMain(Layer.launch(Main))
