/**
 * What real components the tests may start: found on PATH or in the folders of system programs, installed from Debian where
 * the run is root's and something is missing, asked for by name. Whatever cannot be had is told once a run, loudly.
 *
 * Invariant: the machine is changed by `provideComponents` alone, which the global setup calls before any worker starts;
 * no package starts a service. Bound: an install ends within `INSTALL_MS_MAX`.
 */
import { execFile, spawnSync } from 'node:child_process'
import { accessSync, constants, statSync } from 'node:fs'
import { delimiter, join } from 'node:path'
import { promisify } from 'node:util'

const run = promisify(execFile)

const INSTALL_MS_MAX = 300_000
const PROBE_MS_MAX = 10_000

/** Commands, and the Debian packages that bring them. */
const PACKAGES = {
  'redis-server': 'redis-server',
  'redis-sentinel': 'redis-sentinel',
  'redis-cli': 'redis-tools',
  pgbouncer: 'pgbouncer',
  haproxy: 'haproxy',
  nginx: 'nginx',
  ip: 'iproute2',
  iptables: 'iptables',
  'iptables-restore': 'iptables',
  unshare: 'util-linux',
  nsenter: 'util-linux',
  setpriv: 'util-linux',
} as const

export type Command = keyof typeof PACKAGES

const COMMANDS = Object.keys(PACKAGES) as Command[]

/** Namespaces stand for the commands that make them and the right to. */
export type Component = Command | 'network namespaces' | 'process namespaces'

const COMPONENTS: readonly Component[] = [
  'redis-server',
  'redis-sentinel',
  'redis-cli',
  'pgbouncer',
  'haproxy',
  'nginx',
  'network namespaces',
  'process namespaces',
]
const NAMESPACE_COMMANDS: readonly Command[] = ['ip', 'iptables', 'iptables-restore', 'unshare', 'nsenter', 'setpriv']

const FOLDERS = [...(process.env['PATH'] ?? '').split(delimiter), '/usr/local/sbin', '/usr/sbin', '/sbin'].filter((folder) => folder !== '')

/** The program behind a command; null when there is none. */
export function findCommand(command: Command): string | null {
  for (const folder of FOLDERS) {
    const path = join(folder, command)
    try {
      accessSync(path, constants.X_OK)
      if (statSync(path).isFile()) return path
    } catch {
      // not in this folder
    }
  }
  return null
}

export function commandOf(command: Command): string {
  const path = findCommand(command)
  if (path === null) throw new Error(whyMissing(command) ?? `${command} is missing`)
  return path
}

/** Why a component cannot be had, and how to get it; null when it is there. */
export function whyMissing(component: Component): string | null {
  const missing = commandsOf(component).filter((command) => findCommand(command) === null)
  if (missing.length > 0) {
    const packages = packagesOf(missing).join(' ')
    return `${missing.join(', ')} not found: apt-get install --no-install-recommends ${packages}, or run the tests as root on Debian, which does it`
  }
  if (component === 'network namespaces') return whyRefused(component, ['-n', 'sh', '-c', PROBE])
  return component === 'process namespaces' ? whyRefused(component, [...OWN_PROCESSES, 'true']) : null
}

/** In CI a component that is missing fails what needs it. */
export function isCi(): boolean {
  return !['', '0', 'false'].includes(process.env['CI'] ?? '')
}

/** Installs what is missing, where that can be done, and says what stays away. */
export async function provideComponents(): Promise<void> {
  const missing = COMMANDS.filter((command) => findCommand(command) === null)
  if (missing.length > 0 && process.getuid?.() === 0) await install(packagesOf(missing))
  for (const component of COMPONENTS) {
    const reason = whyMissing(component)
    if (reason !== null) say(`${isCi() ? 'FAILING' : 'SKIPPING'} every test that needs ${component}: ${reason}`)
  }
}

function commandsOf(component: Component): readonly Command[] {
  if (component === 'network namespaces') return NAMESPACE_COMMANDS
  return [component === 'process namespaces' ? 'unshare' : component]
}

function packagesOf(commands: readonly Command[]): string[] {
  return [...new Set(commands.map((command) => PACKAGES[command]))]
}

const PROBE = [
  'ip link set lo up',
  'ip link add probe0 type veth peer name probe1',
  'iptables -w -A INPUT -i probe1 -p tcp -j REJECT --reject-with tcp-reset',
].join(' && ')

/** Options of `unshare` for what runs as process 1 of its own world, as in a container; whatever is in there ends with it. */
export const OWN_PROCESSES = ['--pid', '--fork', '--kill-child=KILL', '--mount-proc']

const refusals = new Map<Component, string | null>()

/** Tried out, because a container's root may lack the right, and a kernel the veth or the filter. */
function whyRefused(component: Component, args: readonly string[]): string | null {
  const known = refusals.get(component)
  if (known !== undefined) return known
  const env = { ...process.env, PATH: FOLDERS.join(delimiter) }
  const { status, stderr } = spawnSync(commandOf('unshare'), args, { encoding: 'utf8', timeout: PROBE_MS_MAX, env })
  const refusal = status === 0 ? null : `${stderr.trim().split('\n').at(-1)}: run the tests as root, in a container with --privileged`
  refusals.set(component, refusal)
  return refusal
}

/**
 * `policy-rc.d` is how Debian is told to start no service; one that is there already is somebody's own and stays. The lock
 * is for other test runs on the same machine. An update that fails for one source may do for the rest: the install decides.
 */
const INSTALL = `
policy=/usr/sbin/policy-rc.d
if [ ! -e $policy ] || grep -q 'tests of sealpost' $policy; then
  trap 'rm -f $policy' EXIT
  trap 'exit 1' HUP INT TERM
  printf '#!/bin/sh\\n# made by the tests of sealpost for one install, to be removed\\nexit 101\\n' > $policy
  chmod 755 $policy
fi
options='-q -o DPkg::Lock::Timeout=120 -o Acquire::http::Timeout=30 -o Acquire::Retries=1'
apt-get $options update || true
apt-get $options install -y --no-install-recommends "$@"
`

async function install(packages: readonly string[]): Promise<void> {
  say(`installing ${packages.join(' ')} …`)
  const env = { ...process.env, DEBIAN_FRONTEND: 'noninteractive', APT_LISTCHANGES_FRONTEND: 'none', NEEDRESTART_SUSPEND: '1' }
  try {
    await run('flock', ['/var/lib/apt', 'sh', '-c', INSTALL, 'sh', ...packages], { env, timeout: INSTALL_MS_MAX, maxBuffer: 1 << 26 })
  } catch (error) {
    const { stderr = '', message } = error as { stderr?: string; message: string }
    say(`apt-get did not install them: ${stderr.trim().split('\n').slice(-3).join(' · ') || message}`)
  }
}

function say(sentence: string): void {
  process.stderr.write(`\n>>> ${sentence}\n`)
}
