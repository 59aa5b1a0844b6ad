/**
 * Several relay processes on one external database, as behind a balancer: one key, one folder and port each, no listener of admins.
 * A node that is started again comes back on its port.
 *
 * Invariant: after `stop` no process and no folder is left; the database is whoever's it was.
 */
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type Ended, type Relay, startRelay } from '../components/programs.ts'

export type Node = {
  readonly url: string
  readonly port: number
  readonly pid: number
  /** SIGTERM; resolves when it has ended, which is a failure if not with 0. */
  stop(): Promise<Ended>
  /** SIGKILL; resolves when it is gone. */
  kill(): Promise<void>
  freeze(): void
  thaw(): void
  /** Again, on its port; one that runs is killed first. Resolves when it listens. */
  start(): Promise<void>
}

export type Nodes = {
  readonly list: readonly Node[]
  readonly folder: string
  stop(): Promise<void>
  [Symbol.asyncDispose](): Promise<void>
}

export type NodesOptions = { database_url: string; env?: NodeJS.ProcessEnv }

export async function startNodes(count: number, { database_url, env = {} }: NodesOptions): Promise<Nodes> {
  const folder = await mkdtemp(join(tmpdir(), 'sealpost-nodes-'))
  const common = { DATABASE_URL: database_url, SEALPOST_SECRETS_FILE: join(folder, 'secrets.json'), SEALPOST_ADMIN: 'off', ...env }
  const list: Node[] = []
  const stop = async (): Promise<void> => {
    await Promise.all(list.map((node) => node.kill()))
    await rm(folder, { recursive: true, force: true })
  }
  try {
    // the first makes the key of all
    const first = await startNode(join(folder, '1'), common)
    list.push(first)
    const others = await Promise.allSettled(Array.from({ length: count - 1 }, (_, i) => startNode(join(folder, `${i + 2}`), common)))
    for (const other of others) if (other.status === 'fulfilled') list.push(other.value)
    for (const other of others) if (other.status === 'rejected') throw other.reason
  } catch (error) {
    await stop()
    throw error
  }
  return { list, folder, stop, [Symbol.asyncDispose]: stop }
}

async function startNode(data: string, env: NodeJS.ProcessEnv): Promise<Node> {
  let relay: Relay = await startRelay(data, env)
  const { url, port } = relay
  return {
    url,
    port,
    get pid() {
      return relay.pid
    },
    async stop() {
      relay.kill('SIGTERM')
      const end = await relay.ended
      if (end.code !== 0) throw new Error(`a relay ended with ${end.code ?? end.signal}:\n${end.stderr}\n${end.stdout.toString()}`)
      return end
    },
    async kill() {
      relay.kill('SIGKILL')
      await relay.ended
    },
    freeze: () => relay.kill('SIGSTOP'),
    thaw: () => relay.kill('SIGCONT'),
    async start() {
      relay.kill('SIGKILL')
      await relay.ended
      relay = await startRelay(data, env, port)
    },
  }
}
