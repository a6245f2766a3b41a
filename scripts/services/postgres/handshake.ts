import { Client } from "pg"

/** Runs one statement at `url`; fails when there is no server or it does not let us in. */
export const execute = async (url: string, statement: string): Promise<void> => {
  const client = new Client({ connectionString: url, connectionTimeoutMillis: 5_000 })
  // A server that ends later must not end us.
  client.on("error", () => {})
  try {
    await client.connect()
    await client.query(statement)
  } finally {
    await client.end().catch(() => {})
  }
}

export const answers = (url: string): Promise<boolean> => execute(url, "SELECT 1").then(() => true, () => false)
