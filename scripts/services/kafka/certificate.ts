/** A key of a broker's own, with the certificate that clients have to trust. */
import { execFile } from "node:child_process"
import { join } from "node:path"
import { promisify } from "node:util"

const run = promisify(execFile)

export interface Certificate {
  readonly keystore: string
  readonly password: string
  /** As PEM, signed by itself. */
  readonly ca: string
}

/** Made by `keytool`, which comes with Java; valid for 127.0.0.1 for a day. */
export const makeCertificate = async (folder: string): Promise<Certificate> => {
  const keystore = join(folder, "broker.p12")
  // Of a key that lives as long as a test.
  const password = "changeit"
  const store = ["-alias", "broker", "-keystore", keystore, "-storetype", "PKCS12", "-storepass", password]
  await run("keytool", [
    "-genkeypair",
    "-keyalg",
    "EC",
    "-groupname",
    "secp256r1",
    "-validity",
    "1",
    "-dname",
    "CN=127.0.0.1",
    "-ext",
    "SAN=ip:127.0.0.1",
    ...store
  ])
  const { stdout } = await run("keytool", ["-exportcert", "-rfc", ...store])
  return { keystore, password, ca: stdout }
}
