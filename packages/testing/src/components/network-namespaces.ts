/**
 * Private network namespaces for tests: each is joined to this machine by links of its own (veth pairs), which are cut and
 * healed by a packet filter inside the namespace. Root alone can make them (`describeWith(['network namespaces'], …)`).
 *
 * Invariant: nothing of the machine is changed but the links, which have addresses of 198.18.0.0/15 (for tests, RFC 2544)
 * and lead nowhere else; all of it goes with the namespace, and the namespace with the process that made it.
 */
import { randomBytes, randomInt } from 'node:crypto'
import { readdir, readlink } from 'node:fs/promises'
import { commandOf } from './available.ts'
import { type Place, waitUntil } from './start-component.ts'
import { type Program, type ProgramOptions, startProgram } from './programs.ts'

const HOLD_MS_MAX = 86_400_000
/** Two runs may take the same addresses in the same moment. */
const ATTEMPTS_MAX = 5
const SUBNETS = 1 << 15

export type Link = {
  /** The address of this machine on the link. */
  readonly outside: string
  /** The address of the namespace. */
  readonly inside: string
}

export type Cut = {
  /** `in`: what comes to the namespace is lost; `out`: what leaves it. */
  way?: 'both' | 'in' | 'out'
  /** `drop` loses packets in silence; `reject` resets TCP connections. */
  how?: 'drop' | 'reject'
  /** TCP to and from this port alone, whichever side has it. */
  port?: number
  /** Which link; all when left out. */
  link?: number
}

export type Net = Place & {
  /** The address inside, on the first link. */
  readonly host: string
  readonly links: readonly Link[]
  /** Starts a program inside. Beyond the links and its own loopback it reaches nothing. */
  run(command: string, args: readonly string[], options?: ProgramOptions): Program
  /** Cuts add up until `heal`. What is sent meanwhile is for TCP to send again. */
  cut(cut?: Cut): Promise<void>
  heal(): Promise<void>
  /** Kills all that runs inside and removes the links. */
  dispose(): Promise<void>
  [Symbol.asyncDispose](): Promise<void>
}

export async function createNet({ links: count = 1 }: { links?: number } = {}): Promise<Net> {
  const hold = ['--pdeathsig', 'KILL', commandOf('unshare'), '--net', '--', 'sh', '-c', 'echo ready && exec sleep infinity']
  const holder = startProgram(commandOf('setpriv'), hold, { ms_max: HOLD_MS_MAX })
  await holder.printed(/ready/)
  const namespace = `/proc/${holder.pid}/ns/net`
  const id = await readlink(namespace)
  const prefix = [commandOf('nsenter'), `--net=${namespace}`, '--']
  const names = Array.from({ length: count }, () => `sealpost${randomBytes(3).toString('hex')}`)
  const started: Program[] = []
  const dispose = async (): Promise<void> => {
    // one may be on its way in
    for (const program of started) program.kill('SIGKILL')
    await Promise.allSettled(started.map(({ ended }) => ended))
    await killInside(id)
    await holder.ended
    // at once, and not when the kernel gets to it
    await Promise.all(names.map((name) => ip([], [`link delete ${name}`]).catch(() => {})))
  }
  try {
    const pairs = names.map((name, i) => `link add name ${name} type veth peer name ${peerOf(i)} netns ${holder.pid}`)
    await ip([], pairs)
    await ip(prefix, ['link set lo up'])
    const links: Link[] = []
    for (const [i, name] of names.entries()) links.push(await addressLink(prefix, name, peerOf(i)))
    return createHandle({ prefix, links, dispose }, started)
  } catch (error) {
    await dispose()
    throw error
  }
}

function createHandle({ prefix, links, dispose }: Pick<Net, 'prefix' | 'links' | 'dispose'>, started: Program[]): Net {
  let cuts: Cut[] = []
  const [enter = '', ...inside] = prefix
  const dying = [commandOf('setpriv'), '--pdeathsig', 'KILL']
  let filtered: Promise<unknown> = Promise.resolve()
  // one after another: the last that is asked for is the one that holds
  const filter = (): Promise<unknown> => {
    const apply = (): Promise<string> => feed([...prefix, commandOf('iptables-restore'), '--wait'], filterOf(cuts, links.length))
    return (filtered = filtered.then(apply, apply))
  }
  return {
    host: links[0]?.inside ?? '127.0.0.1',
    prefix,
    links,
    run(command, args, options) {
      const program = startProgram(enter, [...inside, ...dying, command, ...args], options)
      started.push(program)
      return program
    },
    async cut(cut = {}) {
      cuts.push(cut)
      await filter()
    },
    async heal() {
      cuts = []
      await filter()
    },
    dispose,
    [Symbol.asyncDispose]: dispose,
  }
}

function peerOf(link: number): string {
  return `link${link}`
}

// ---------------------------------------------------------------- addresses

/** Both ends of a link get addresses of a subnet that nobody else on this machine has. */
async function addressLink(prefix: readonly string[], name: string, peer: string): Promise<Link> {
  for (let attempt = 0; attempt < ATTEMPTS_MAX; attempt++) {
    const subnet = randomInt(SUBNETS) * 4
    const address = (host: number): string => `198.${18 + (subnet >> 16)}.${(subnet >> 8) & 255}.${(subnet & 255) + host}`
    const [outside, inside] = [address(1), address(2)]
    if ((await countHolders(outside)) > 0) continue
    await ip([], [`link set ${name} up`, `address add ${outside}/30 dev ${name}`])
    if ((await countHolders(outside)) === 1) {
      await ip(prefix, [`link set ${peer} up`, `address add ${inside}/30 dev ${peer}`])
      return { outside, inside }
    }
    await ip([], [`address flush dev ${name}`])
  }
  throw new Error('no free subnet in 198.18.0.0/15')
}

async function countHolders(address: string): Promise<number> {
  const text = await feed([commandOf('ip'), '-o', '-4', 'address', 'show'])
  return text.split(` ${address}/`).length - 1
}

function ip(prefix: readonly string[], lines: readonly string[]): Promise<string> {
  return feed([...prefix, commandOf('ip'), '-batch', '-'], `${lines.join('\n')}\n`)
}

/** Runs a command to its end with `input`, and gives what it printed. */
async function feed([command = '', ...args]: readonly string[], input = ''): Promise<string> {
  const { code, stdout, stderr } = await startProgram(command, args, { input }).ended
  if (code !== 0) throw new Error(`${[command, ...args].join(' ')} ended with ${code}:\n${stderr}${input}`)
  return stdout.toString()
}

// ---------------------------------------------------------------- what runs inside

/** Again and again, until a look finds none: one may have started another meanwhile. */
async function killInside(id: string): Promise<void> {
  await waitUntil('nothing runs in the namespace', async () => {
    const pids = await findInside(id)
    for (const pid of pids) process.kill(pid, 'SIGKILL')
    return pids.length === 0
  })
}

async function findInside(id: string): Promise<number[]> {
  const pids = (await readdir('/proc')).filter((name) => /^\d+$/.test(name))
  const ids = await Promise.all(pids.map((pid) => readlink(`/proc/${pid}/ns/net`).catch(() => null)))
  return pids.filter((_, i) => ids[i] === id).map(Number)
}

// ---------------------------------------------------------------- the filter

/** The whole table at once, so that there is no moment between two cuts. */
function filterOf(cuts: readonly Cut[], links: number): string {
  const rules = cuts.flatMap((cut) => {
    const places = cut.link === undefined ? Array.from({ length: links }, (_, i) => i) : [cut.link]
    return places.flatMap((link) => rulesOf(cut, peerOf(link)))
  })
  return ['*filter', ':INPUT ACCEPT', ':FORWARD ACCEPT', ':OUTPUT ACCEPT', ...rules, 'COMMIT', ''].join('\n')
}

function rulesOf({ way = 'both', how = 'drop', port }: Cut, link: string): string[] {
  const chains = [...(way === 'out' ? [] : [`INPUT -i ${link}`]), ...(way === 'in' ? [] : [`OUTPUT -o ${link}`])]
  const traffic = port === undefined ? [''] : [`-p tcp --dport ${port}`, `-p tcp --sport ${port}`]
  return chains.flatMap((chain) => {
    if (how === 'drop') return traffic.map((match) => `-A ${chain} ${match} -j DROP`)
    // resets pass: they are what rejects
    const tcp = traffic.map((match) => `-A ${chain} ${match || '-p tcp'} --tcp-flags RST NONE -j REJECT --reject-with tcp-reset`)
    return port === undefined ? [...tcp, `-A ${chain} ! -p tcp -j DROP`] : tcp
  })
}
