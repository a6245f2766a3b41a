/**
 * Logs in to MySQL or MariaDB in the one exchange that it takes, since no
 * client for it is among our dependencies.
 *
 * https://dev.mysql.com/doc/dev/mysql-server/latest/page_protocol_connection_phase.html
 */
import { createHash } from "node:crypto"
import { connect } from "node:net"

export type Flavour = "MySQL" | "MariaDB"

/** Whether a server of this flavour answers, and lets us in. */
export const answersAs = (flavour: Flavour) => (url: string): Promise<boolean> =>
  new Promise((resolve) => {
    const { hostname, port } = new URL(url)
    const socket = connect({ host: hostname, port: Number(port || 3306), timeout: 5_000 })
    const finish = (answer: boolean) => {
      socket.destroy()
      resolve(answer)
    }
    let buffer = Buffer.alloc(0)
    let greeted = false
    socket.on("data", (chunk) => {
      buffer = Buffer.concat([buffer, chunk])
      if (buffer.length < 4 || buffer.length < 4 + buffer.readUIntLE(0, 3)) {
        return
      }
      const sequence = buffer.readUInt8(3)
      const payload = buffer.subarray(4, 4 + buffer.readUIntLE(0, 3))
      buffer = buffer.subarray(4 + payload.length)
      if (!greeted) {
        greeted = true
        if (payload[0] === protocolVersion && flavourOf(payload) === flavour) {
          socket.write(packet(sequence + 1, loginRequest(url, payload)))
        } else {
          finish(false)
        }
      } else if (payload[0] === switchMethod && new URL(url).password === "") {
        // Another way to log in; the empty password is the same in each.
        socket.write(packet(sequence + 1, Buffer.alloc(0)))
      } else {
        finish(payload[0] === ok || payload[0] === switchMethod)
      }
    })
    socket.on("timeout", () => finish(false))
    socket.on("error", () => finish(false))
    socket.on("close", () => finish(false))
  })

const protocolVersion = 10
const ok = 0x00
const switchMethod = 0xfe

/** The greeting begins with the server's version, in which MariaDB names itself. */
const flavourOf = (greeting: Buffer): Flavour =>
  greeting.subarray(1, greeting.indexOf(0, 1)).includes("MariaDB") ? "MariaDB" : "MySQL"

const packet = (sequence: number, payload: Buffer): Buffer => {
  const header = Buffer.alloc(4)
  header.writeUIntLE(payload.length, 0, 3)
  header.writeUInt8(sequence, 3)
  return Buffer.concat([header, payload])
}

/** HandshakeResponse41. */
const loginRequest = (url: string, greeting: Buffer): Buffer => {
  const { password, pathname, username } = new URL(url)
  const capabilities = 0x1 | // long password
    0x8 | // names a database
    0x200 | // protocol 4.1
    0x8000 | // scrambled password
    0x80000 // names the method
  const fixed = Buffer.alloc(32)
  fixed.writeUInt32LE(capabilities, 0)
  fixed.writeUInt32LE(0x1000000, 4) // largest packet
  fixed.writeUInt8(45, 8) // utf8mb4
  const scrambled = scramble(decodeURIComponent(password), nonce(greeting))
  return Buffer.concat([
    fixed,
    zeroEnded(decodeURIComponent(username)),
    Buffer.from([scrambled.length]),
    scrambled,
    zeroEnded(decodeURIComponent(pathname.slice(1))),
    zeroEnded("mysql_native_password")
  ])
}

const zeroEnded = (text: string): Buffer => Buffer.from(`${text}\0`)

/** The greeting carries it in two parts: 8 bytes after the version and thread, 12 bytes 19 bytes later. */
const nonce = (greeting: Buffer): Buffer => {
  const first = greeting.indexOf(0, 1) + 1 + 4
  const second = first + 8 + 19
  return Buffer.concat([greeting.subarray(first, first + 8), greeting.subarray(second, second + 12)])
}

const scramble = (password: string, salt: Buffer): Buffer => {
  if (password === "") {
    return Buffer.alloc(0)
  }
  const sha1 = (...parts: ReadonlyArray<Buffer>) => createHash("sha1").update(Buffer.concat(parts)).digest()
  const hashed = sha1(Buffer.from(password))
  const mask = sha1(salt, sha1(hashed))
  return Buffer.from(hashed.map((byte, index) => byte ^ mask[index]!))
}
