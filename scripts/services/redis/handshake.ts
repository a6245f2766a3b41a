import { connect } from "node:net"

/** Sends PING; a server that lets us in answers +PONG. */
export const answers = (url: string): Promise<boolean> =>
  new Promise((resolve) => {
    const { hostname, password, port, username } = new URL(url)
    const login = password === ""
      ? ""
      : `AUTH ${decodeURIComponent(username || "default")} ${decodeURIComponent(password)}\r\n`
    const socket = connect({ host: hostname, port: Number(port || 6379), timeout: 5_000 })
    const finish = (answer: boolean) => {
      socket.destroy()
      resolve(answer)
    }
    let received = ""
    socket.setEncoding("utf8")
    socket.on("connect", () => socket.write(`${login}PING\r\n`))
    socket.on("data", (text) => {
      received += text
      if (/^[+]PONG\r\n/m.test(received)) {
        finish(true)
      } else if (/^-.*\r\n/m.test(received)) {
        finish(false)
      }
    })
    socket.on("timeout", () => finish(false))
    socket.on("error", () => finish(false))
    socket.on("close", () => finish(false))
  })
