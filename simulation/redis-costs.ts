/**
 * What hints cost a real Redis: `node --conditions=development simulation/redis-costs.ts [devices] [nodes]`. It starts `redis-server` on
 * loopback, without persistence, and gives CPU time of Redis (`INFO cpu`), not wall time: clients and server share the machine.
 *
 * First single channels, by how many nodes are subscribed and how many messages come in one write; then the made-up world of
 * `fan-out.ts` itself: every channel of every node subscribed to, hints drawn as users send, presence, and counts of limits.
 */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { connect, createServer, type Socket } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'
import { createRandom } from './random.ts'
import { show, showBytes, table } from './tables.ts'
import { drawUser, makeWorld, usersOf } from './world.ts'

/** A hint of two events of 256 B: bus/hint-codec.ts. */
const HINT_BYTES = 901
const PUBLISHES = 60_000
const REPEATS = 5
/** Of a list of two numbers. */
const LIMIT_LINES = 3

const [devices = 1_000_000, nodes = 50] = process.argv.slice(2).map(Number)
const port = await freePort()
const redis = spawn(
  'setpriv',
  [
    '--pdeathsig',
    'KILL',
    'redis-server',
    '--port',
    `${port}`,
    '--bind',
    '127.0.0.1',
    '--save',
    '',
    '--appendonly',
    'no',
    '--loglevel',
    'warning',
  ],
  { stdio: ['ignore', 'ignore', 'inherit'] },
)
try {
  const admin = await openFirst()
  const version = /redis_version:(\S+)/.exec(await admin.ask('INFO', 'server'))?.[1]
  console.log(`redis-server ${version}, messages of ${HINT_BYTES} B, CPU of Redis in µs; the least of ${REPEATS}\n`)
  console.log(`${await measureChannels(admin)}\n`)
  console.log(await measureWorld(admin))
  admin.socket.destroy()
} finally {
  redis.kill('SIGTERM')
  await once(redis, 'exit')
}

async function measureChannels(admin: Client): Promise<string> {
  const publisher = await open()
  const listeners = await Promise.all(Array.from({ length: 5 }, open))
  const rows: string[][] = []
  const counts = [0, 1, 2, 3, 5]
  for (const depth of [1, 8, 64]) {
    const row = [`${depth} in one write`]
    for (const subscribed of counts) {
      const channel = `c${subscribed}`
      for (const listener of listeners.slice(0, subscribed)) await listener.ask('SUBSCRIBE', channel)
      const message = command('PUBLISH', channel, Buffer.alloc(HINT_BYTES))
      row.push(show(await least(() => costOf(admin, PUBLISHES, (count) => publisher.send(count, depth, () => message)))))
      for (const listener of listeners.slice(0, subscribed)) await listener.ask('UNSUBSCRIBE', channel)
    }
    rows.push(row)
  }
  for (const client of [publisher, ...listeners]) client.socket.destroy()
  return table(['µs per PUBLISH, so many subscribed', ...counts.map(String)], rows)
}

async function measureWorld(admin: Client): Promise<string> {
  const random = createRandom(1)
  const world = makeWorld({ devices, nodes, placement: 'random' }, random)
  const listeners = await Promise.all(Array.from({ length: nodes }, open))
  const channelOf = (user: number): string => `sealpost:0123456789abcdef:{${user % 1_024}}:${user}`
  const ofNode = Array.from({ length: nodes }, (): number[] => [])
  for (let user = 0; user < usersOf(world); user++)
    for (const node of new Set(world.nodeOf.subarray(world.firstDevice[user], world.firstDevice[user + 1]))) ofNode[node]?.push(user)
  const subscriptions = ofNode.reduce((sum, users) => sum + users.length, 0)
  const each = async (verb: string, together: number): Promise<void> => {
    for (const [node, users] of ofNode.entries())
      for (let from = 0; from < users.length; from += together)
        await listeners[node]?.ask(verb, ...users.slice(from, from + together).map(channelOf))
  }

  const empty = await memory(admin)
  const joined = await costOf(admin, subscriptions, () => each('SUBSCRIBE', 500))
  const bytes = (await memory(admin)) - empty
  const publisher = await open()
  let copies = 0
  const hint = Buffer.alloc(HINT_BYTES)
  const publish = (count: number): Promise<void> =>
    publisher.send(count, 8, () => {
      const user = drawUser(world, random)
      copies += world.reachOf[user] ?? 0
      return command('PUBLISH', channelOf(user), hint)
    })
  const hinted = await least(() => costOf(admin, PUBLISHES, publish))
  const perHint = copies / (PUBLISHES * REPEATS)
  // what one connect or disconnect of a user costs alone: one channel in one command
  const some = ofNode[0]?.slice(0, 10_000) ?? []
  const single = async (verb: string): Promise<number> =>
    costOf(admin, some.length, async () => {
      for (const user of some) await listeners[0]?.ask(verb, channelOf(user))
    })
  const left = await single('UNSUBSCRIBE')
  const again = await single('SUBSCRIBE')
  const parted = await costOf(admin, subscriptions, () => each('UNSUBSCRIBE', 500))
  const counted = await measureLimits(admin, publisher)
  for (const client of [publisher, ...listeners]) client.socket.destroy()
  return table(
    [`${show(devices)} devices, ${nodes} nodes, ${show(subscriptions)} subscriptions, ${show(usersOf(world))} channels`, 'CPU of Redis'],
    [
      ['a hint, 8 in one write, drawn as users send', `${show(hinted)} µs for ${show(perHint)} copies`],
      ['subscribe: 500 channels in one command · one, alone', `${show(joined)} · ${show(again)} µs each`],
      ['unsubscribe: 500 channels in one command · one, alone', `${show(parted)} · ${show(left)} µs each`],
      ['memory', `${showBytes(bytes)}, ${show(bytes / subscriptions)} B per subscription`],
      ['a count of a limit: 8 in one write · one, alone', `${counted.us.map(show).join(' · ')} µs, ${show(counted.bytes)} B per key`],
    ],
  )
}

/** As the limiter does it: the count of a key, and the time of a new one. */
async function measureLimits(admin: Client, client: Client): Promise<{ us: number[]; bytes: number }> {
  const script = `redis.call('set', KEYS[1], 0, 'EX', ARGV[2], 'NX') return { redis.call('incrby', KEYS[1], ARGV[1]), redis.call('pttl', KEYS[1]) }`
  const sha = (await client.ask('SCRIPT', 'LOAD', script)).split('\r\n')[1] ?? ''
  const before = await memory(admin)
  let key = 0
  const next = (): Buffer => command('EVALSHA', sha, '1', `sealpost:0123456789abcdef:limit:handshake_device:${key++}`, '1', '60')
  const us: number[] = []
  for (const depth of [8, 1]) us.push(await costOf(admin, PUBLISHES, (count) => client.send(count, depth, next, LIMIT_LINES)))
  return { us, bytes: ((await memory(admin)) - before) / key }
}

// ---------------------------------------------------------------- Redis

type Client = {
  socket: Socket
  /** One command, its whole answer as text. */
  ask(...parts: string[]): Promise<string>
  /** `count` commands that answer so many lines each, `depth` in one write, the next ones after the answers. */
  send(count: number, depth: number, next: () => Buffer, answer?: number): Promise<void>
}

/** It takes a moment to start. */
async function openFirst(): Promise<Client> {
  for (let i = 0; ; i++) {
    try {
      return await open()
    } catch (error) {
      if (i === 50) throw error
      await sleep(100)
    }
  }
}

async function open(): Promise<Client> {
  const socket = connect(port, '127.0.0.1')
  socket.setNoDelay(true)
  await once(socket, 'connect')
  let lines = 0
  let text = ''
  let wanted = false
  let counting = false
  let wake = (): void => {}
  socket.on('data', (data: Buffer) => {
    if (wanted) text += data.toString('latin1')
    // of a message that was subscribed to nothing is read
    if (counting) for (const byte of data) if (byte === 10) lines += 1
    wake()
  })
  async function until(isDone: () => boolean): Promise<void> {
    while (!isDone()) await new Promise<void>((resolve) => (wake = resolve))
  }
  return {
    socket,
    async ask(...parts) {
      ;[text, wanted] = ['', true]
      socket.write(command(...parts))
      const [verb = ''] = parts
      const channels = verb.endsWith('SUBSCRIBE') ? parts.length - 1 : 0
      // an answer to SUBSCRIBE is six lines for each channel
      await until(() => (channels > 0 ? text.split('\r\n').length > 6 * channels : isWhole(text)))
      wanted = false
      return text
    },
    async send(count, depth, next, answer = 1) {
      counting = true
      for (let sent = 0; sent < count; sent += depth) {
        const after = lines + depth * answer
        socket.write(Buffer.concat(Array.from({ length: depth }, next)))
        await until(() => lines >= after)
      }
    },
  }
}

function isWhole(text: string): boolean {
  if (!text.startsWith('$')) return text.endsWith('\r\n')
  const end = text.indexOf('\r\n')
  return end > 0 && text.length >= end + 4 + Number(text.slice(1, end))
}

function command(...parts: (string | Buffer)[]): Buffer {
  const chunks = [Buffer.from(`*${parts.length}\r\n`)]
  for (const part of parts) {
    const bytes = Buffer.from(part)
    chunks.push(Buffer.from(`$${bytes.length}\r\n`), bytes, Buffer.from('\r\n'))
  }
  return Buffer.concat(chunks)
}

/** µs of Redis for one of `count`. */
async function costOf(admin: Client, count: number, work: (count: number) => Promise<void>): Promise<number> {
  const before = await cpuSeconds(admin)
  await work(count)
  return (((await cpuSeconds(admin)) - before) * 1e6) / count
}

async function cpuSeconds(admin: Client): Promise<number> {
  const info = await admin.ask('INFO', 'cpu')
  return Number(/used_cpu_sys:(\S+)/.exec(info)?.[1]) + Number(/used_cpu_user:(\S+)/.exec(info)?.[1])
}

async function memory(admin: Client): Promise<number> {
  return Number(/used_memory:(\d+)/.exec(await admin.ask('INFO', 'memory'))?.[1])
}

/** Others make it more, and never less. */
async function least(measure: () => Promise<number>): Promise<number> {
  const values: number[] = []
  for (let i = 0; i < REPEATS; i++) values.push(await measure())
  return Math.min(...values)
}

async function freePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1')
  await once(server, 'listening')
  const address = server.address()
  server.close()
  await sleep(50)
  return typeof address === 'object' && address !== null ? address.port : 0
}
