/**
 * Real load balancers in the foreground, each with the configuration it is given: a master and its workers, reloaded in
 * place, so that old workers serve what they have and new ones take what comes.
 */
import { execFile } from 'node:child_process'
import { readdir, readFile, readlink, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { commandOf } from './available.ts'
import { type Given, isListening, LOOPBACK, type Place, type Running, startComponent, waitUntil } from './start-component.ts'

const run = promisify(execFile)

/** The text for the ports, host and folder it is given; all of `ports` are to be listened on. */
export type ProxyConfig = (given: Given) => string

export type ProxyOptions = {
  config: ProxyConfig
  /** How many ports the configuration listens on (1). */
  ports?: number
  /** Written into the folder: certificates, lists. */
  files?: Readonly<Record<string, string | Uint8Array>>
  at?: Place
}

export type Proxy = Running & {
  /** Takes the configuration (another one, where given) without losing a connection; throws what the program has against it. */
  reload(config?: ProxyConfig): Promise<void>
}

type Kind = {
  command: 'haproxy' | 'nginx'
  file: string
  dies_by: 'KILL' | 'TERM'
  reload_by: NodeJS.Signals
  write(text: string): string
  run_args(given: Given): string[]
  check_args(given: Given): string[]
}

/** The worker ends when its master does, however that ends. */
const HAPROXY: Kind = {
  command: 'haproxy',
  file: 'haproxy.cfg',
  dies_by: 'KILL',
  reload_by: 'SIGUSR2',
  write: (text) => text,
  run_args: ({ folder }) => ['-W', '-db', '-f', join(folder, 'haproxy.cfg')],
  check_args: ({ folder }) => ['-c', '-f', join(folder, 'haproxy.cfg')],
}

const NGINX_TEMPORARY = ['client_body', 'proxy', 'fastcgi', 'uwsgi', 'scgi'].map((name) => `${name}_temp_path temporary-${name};`).join(' ')

/** Workers outlive a master that is killed, not one that is told to end. */
const NGINX: Kind = {
  command: 'nginx',
  file: 'nginx.conf',
  dies_by: 'TERM',
  reload_by: 'SIGHUP',
  // it would give the machine's own folders to its user, and write the machine's log
  write: (text) =>
    text.replace(/\bhttp\s*\{/, (open) => `${open} ${NGINX_TEMPORARY}${text.includes('access_log') ? '' : ' access_log off;'}`),
  run_args: ({ folder }) => [...nginxArgs(folder), '-g', 'daemon off; pid nginx.pid;'],
  check_args: ({ folder }) => ['-q', '-t', ...nginxArgs(folder), '-g', 'pid nginx.pid;'],
}

function nginxArgs(folder: string): string[] {
  return ['-p', folder, '-c', 'nginx.conf', '-e', 'stderr']
}

/** The configuration leaves `daemon` out. */
export function startHaproxy(options: ProxyOptions): Promise<Proxy> {
  return startProxy(HAPROXY, options)
}

/** The configuration leaves `daemon` and `pid` out; its paths are those of the folder. */
export function startNginx(options: ProxyOptions): Promise<Proxy> {
  return startProxy(NGINX, options)
}

async function startProxy(kind: Kind, options: ProxyOptions): Promise<Proxy> {
  let { config } = options
  const write = ({ folder }: Given, text: string): Promise<void> => writeFile(join(folder, kind.file), kind.write(text))
  const running = await startComponent({
    command: kind.command,
    at: options.at,
    ports: options.ports,
    dies_by: kind.dies_by,
    async prepare(given) {
      for (const [name, content] of Object.entries(options.files ?? {})) await writeFile(join(given.folder, name), content, { mode: 0o600 })
      await write(given, config(given))
      return kind.run_args(given)
    },
    isReady: async ({ host, ports }) => (await Promise.all(ports.map((port) => isListening(port, host)))).every(Boolean),
  })
  const reload = async (next: ProxyConfig = config): Promise<void> => {
    await write(running, next(running))
    await check(kind, running, options.at ?? LOOPBACK)
    config = next
    const old = await childrenOf(running.pid)
    process.kill(running.pid, kind.reload_by)
    await waitUntil(`new workers of ${kind.command} alone take connections`, async () => {
      const now = await childrenOf(running.pid)
      if (now.every((pid) => old.includes(pid))) return false
      const listening = await listeningSockets(running.pid, running.ports)
      const held = await Promise.all(old.map(socketsOf))
      return !held.flat().some((socket) => listening.has(socket))
    })
  }
  return Object.defineProperty(running as Proxy, 'reload', { value: reload, enumerable: true })
}

async function check(kind: Kind, given: Given, { prefix }: Place): Promise<void> {
  const [command = '', ...args] = [...prefix, commandOf(kind.command), ...kind.check_args(given)]
  try {
    await run(command, args, { cwd: '/' })
  } catch (error) {
    const { stdout = '', stderr = '' } = error as { stdout?: string; stderr?: string }
    throw new Error(`${kind.command} refuses its configuration:\n${stdout}${stderr}`, { cause: error })
  }
}

async function childrenOf(parent: number): Promise<number[]> {
  const pids = (await readdir('/proc')).filter((name) => /^\d+$/.test(name)).map(Number)
  const parents = await Promise.all(pids.map((pid) => readFile(`/proc/${pid}/stat`, 'utf8').then(parentIn, () => null)))
  return pids.filter((_, i) => parents[i] === parent)
}

/** The second field, the name, may hold anything; after its last bracket come state and parent. */
function parentIn(stat: string): number {
  return Number(stat.slice(stat.lastIndexOf(')') + 2).split(' ')[1])
}

/** Of the namespace that a process is in, named as its file descriptors name them. */
async function listeningSockets(pid: number, ports: readonly number[]): Promise<Set<string>> {
  const tables = await Promise.all(['tcp', 'tcp6'].map((name) => readFile(`/proc/${pid}/net/${name}`, 'utf8').catch(() => '')))
  const rows = tables.flatMap((table) => table.split('\n').map((line) => line.trim().split(/\s+/)))
  const LISTEN = '0A'
  const chosen = rows.filter(
    ([, local = '', , state]) => state === LISTEN && ports.includes(Number.parseInt(local.split(':')[1] ?? '', 16)),
  )
  return new Set(chosen.map((row) => `socket:[${row[9]}]`))
}

/** Of a process that has ended: none. */
async function socketsOf(pid: number): Promise<string[]> {
  const names = await readdir(`/proc/${pid}/fd`).catch(() => [])
  return Promise.all(names.map((name) => readlink(`/proc/${pid}/fd/${name}`).catch(() => '')))
}
