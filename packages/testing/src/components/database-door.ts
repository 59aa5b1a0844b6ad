/** A door before PostgreSQL that can be shut: what comes through it is passed on, and cut off when it is shut. */
import { mkdtemp, rm } from 'node:fs/promises'
import { createServer, connect, type Server, type Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

export type DatabaseDoor = {
  /** The URL of the database behind the door. */
  readonly url: string
  open(): Promise<void>
  shut(): Promise<void>
  /** Shut for good. */
  end(): Promise<void>
}

const PORT = 5432

export async function createDatabaseDoor(database_url: string): Promise<DatabaseDoor> {
  const folder = await mkdtemp(join(tmpdir(), 'door-'))
  const behind = new URL(database_url)
  const socket_folder = behind.searchParams.get('host')
  const target =
    socket_folder === null
      ? { host: behind.hostname, port: Number(behind.port || PORT) }
      : { path: join(socket_folder, `.s.PGSQL.${behind.port || PORT}`) }
  const url = new URL(database_url)
  url.port = ''
  url.searchParams.set('host', folder)
  const passing = new Set<Socket>()
  let server: Server | null = null

  const pass = (front: Socket): void => {
    const back = connect(target)
    for (const [one, other] of [
      [front, back],
      [back, front],
    ] as const) {
      passing.add(one)
      one.on('error', () => other.destroy())
      one.on('close', () => {
        passing.delete(one)
        other.destroy()
      })
      one.pipe(other)
    }
  }

  const door: DatabaseDoor = {
    url: url.href,
    async open() {
      const opened = createServer(pass)
      await new Promise<void>((resolve, reject) => {
        opened.once('error', reject)
        opened.listen(join(folder, `.s.PGSQL.${PORT}`), resolve)
      })
      server = opened
    },
    async shut() {
      const shutting = server
      server = null
      for (const socket of passing) socket.destroy()
      if (shutting !== null) await new Promise<void>((resolve) => shutting.close(() => resolve()))
    },
    async end() {
      await door.shut()
      await rm(folder, { recursive: true, force: true })
    },
  }
  await door.open()
  return door
}
