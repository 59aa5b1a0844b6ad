import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtemp, readdir, rm, writeFile } from 'node:fs/promises'
import { connect } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { EMPTY, SealpostError } from '@sealpost/protocol'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import type { LeaderLink, LeaderSeat } from '../ports.ts'
import { createCoordination, type NodeCoordination } from './coordination.ts'

let folder: string
let opened: NodeCoordination[]
let children: ChildProcess[]

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'sealpost-lead-'))
  opened = []
  children = []
})
afterEach(async () => {
  for (const one of opened) await one.close()
  for (const child of children) {
    if (child.exitCode !== null || child.signalCode !== null) continue
    child.kill('SIGKILL')
    await once(child, 'exit')
  }
  await rm(folder, { recursive: true, force: true })
})

async function take(dir = folder): Promise<LeaderSeat | LeaderLink> {
  const coordination = createCoordination(dir)
  opened.push(coordination)
  return coordination.lead()
}

async function leaderAndFollower(dir = folder): Promise<[LeaderSeat, LeaderLink]> {
  const leader = await take(dir)
  const follower = await take(dir)
  if (leader.role !== 'leader' || follower.role !== 'follower') throw new Error('the first leads, the second follows')
  return [leader, follower]
}

type HomeProcess = { pid: number; child: ChildProcess; lines: string[]; said(line: string): Promise<void> }

function startProcess(): HomeProcess {
  const script = fileURLToPath(import.meta.resolve('@sealpost/testing/clients/home-process'))
  const child = spawn(process.execPath, ['--conditions=development', '--disable-warning=ExperimentalWarning', script, folder], {
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  children.push(child)
  const lines: string[] = []
  child.stdout.on('data', (text: Buffer) => lines.push(...text.toString().trim().split('\n')))
  return {
    pid: child.pid ?? 0,
    child,
    lines,
    said: (line) => expect.poll(() => lines, { timeout: 15_000, interval: 10 }).toContain(line),
  }
}

describe('the processes of a home', () => {
  test('the first leads, others follow', async () => {
    const [leader, follower] = await leaderAndFollower()
    expect([leader.role, follower.role, (await take()).role]).toEqual(['leader', 'follower', 'follower'])
  })

  test('a request carries a head and bytes both ways', async () => {
    const [leader, follower] = await leaderAndFollower()
    leader.onRequest(async ({ head, body }) => ({ head: { got: head }, body: body.map((byte) => byte ^ 0xff) }))
    const body = new Uint8Array(2_000_000).fill(1)
    const answer = await follower.request({ head: { a: 'ü' }, body })
    expect(answer.head).toEqual({ got: { a: 'ü' } })
    expect(answer.body).toEqual(new Uint8Array(2_000_000).fill(0xfe))
  })

  test('several requests are answered at a time, each with its own answer', async () => {
    const [leader, follower] = await leaderAndFollower()
    leader.onRequest(async ({ head }) => {
      await sleep(head.n === 0 ? 50 : 1)
      return { head, body: EMPTY }
    })
    const answers = await Promise.all([0, 1, 2].map((n) => follower.request({ head: { n }, body: EMPTY })))
    expect(answers.map(({ head }) => head.n)).toEqual([0, 1, 2])
  })

  test('a request that comes before anybody answers waits', async () => {
    const [leader, follower] = await leaderAndFollower()
    const answer = follower.request({ head: {}, body: EMPTY })
    await sleep(30)
    leader.onRequest(async () => ({ head: { late: true }, body: EMPTY }))
    expect((await answer).head).toEqual({ late: true })
  })

  test('errors arrive with code and sentence, others as internal without their text', async () => {
    const [leader, follower] = await leaderAndFollower()
    leader.onRequest(async ({ head }) => {
      throw head.known === true ? new SealpostError('heads_stale', 'a sentence') : new TypeError('inside')
    })
    await expect(follower.request({ head: { known: true }, body: EMPTY })).rejects.toMatchObject({
      code: 'heads_stale',
      message: 'a sentence',
    })
    const error: unknown = await follower.request({ head: {}, body: EMPTY }).catch((one: unknown) => one)
    expect(error).toMatchObject({ code: 'internal', message: expect.not.stringContaining('inside') })
  })

  test('giving up a request aborts it at the leader', async () => {
    const [leader, follower] = await leaderAndFollower()
    const aborted = Promise.withResolvers<void>()
    leader.onRequest((_, signal) => {
      signal.addEventListener('abort', () => aborted.resolve())
      return new Promise(() => {})
    })
    const controller = new AbortController()
    const request = follower.request({ head: {}, body: EMPTY }, controller.signal)
    await sleep(20)
    controller.abort()
    await expect(request).rejects.toMatchObject({ code: 'aborted' })
    await aborted.promise
    await expect(follower.request({ head: {}, body: EMPTY }, controller.signal)).rejects.toMatchObject({ code: 'aborted' })
  })

  test('a follower that goes aborts its requests at the leader', async () => {
    const [leader, follower] = await leaderAndFollower()
    const aborted = Promise.withResolvers<void>()
    leader.onRequest((_, signal) => {
      signal.addEventListener('abort', () => aborted.resolve())
      return new Promise(() => {})
    })
    const request = follower.request({ head: {}, body: EMPTY })
    request.catch(() => {})
    await sleep(20)
    await follower.close()
    await aborted.promise
    await expect(request).rejects.toMatchObject({ code: 'unreachable' })
  })

  test('wakes arrive on both sides, many as few', async () => {
    const [leader, follower] = await leaderAndFollower()
    let toLeader = 0
    let toFollower = 0
    leader.onWake(() => void toLeader++)
    follower.onWake(() => void toFollower++)
    for (let i = 0; i < 1_000; i++) {
      leader.wake()
      follower.wake()
    }
    await expect.poll(() => toLeader > 0 && toFollower > 0).toBe(true)
    expect(toLeader + toFollower).toBeLessThan(20)
  })

  test('when the leader resigns a follower notices and can lead; its open requests are unreachable', async () => {
    const [leader, follower] = await leaderAndFollower()
    leader.onRequest(() => new Promise(() => {}))
    const request = follower.request({ head: {}, body: EMPTY })
    request.catch(() => {})
    await leader.resign()
    await follower.ended
    await expect(request).rejects.toMatchObject({ code: 'unreachable' })
    expect((await take()).role).toBe('leader')
  })

  test('works in a folder whose path is longer than a socket address', async () => {
    const { mkdir } = await import('node:fs/promises')
    const deep = join(folder, 'x'.repeat(100), 'y'.repeat(100))
    await mkdir(deep, { recursive: true, mode: 0o700 })
    const [leader, follower] = await leaderAndFollower(deep)
    leader.onRequest(async () => ({ head: { ok: true }, body: EMPTY }))
    expect((await follower.request({ head: {}, body: EMPTY })).head).toEqual({ ok: true })
    await leader.resign()
    expect(await readdir(deep)).toEqual(['leader.lock'])
  })

  test('a file left in place of the socket is replaced', async () => {
    await writeFile(join(folder, 'leader.sock'), 'left')
    const [leader] = await leaderAndFollower()
    expect(leader.role).toBe('leader')
  })

  test('a frame that is too long or cannot be read ends that connection alone', async () => {
    const [leader, follower] = await leaderAndFollower()
    leader.onRequest(async () => ({ head: { ok: true }, body: EMPTY }))
    for (const bytes of [
      Buffer.from([0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0]),
      Buffer.from([0, 0, 0, 6, 0, 0, 0, 2, 0x7b, 0x7b]),
      Buffer.from([0, 0, 0, 4, 0, 0, 0, 9]),
    ]) {
      const socket = connect(join(folder, 'leader.sock'))
      socket.on('error', () => {})
      socket.write(bytes)
      socket.resume()
      await once(socket, 'close')
    }
    expect((await follower.request({ head: {}, body: EMPTY })).head).toEqual({ ok: true })
  })

  test('lead can be given up', async () => {
    const [leader] = await leaderAndFollower()
    expect(leader.role).toBe('leader')
    const coordination = createCoordination(folder)
    opened.push(coordination)
    await expect(coordination.lead(AbortSignal.abort())).rejects.toMatchObject({ code: 'aborted' })
  })

  test('a leader killed with SIGKILL is followed by exactly one of the others, five times', async () => {
    const processes = Array.from({ length: 3 }, startProcess)
    for (let round = 0; round < 5; round++) {
      await expect.poll(() => processes.filter(({ lines }) => lines.includes('leader')).length, { timeout: 15_000 }).toBe(1)
      const leader = processes.find(({ lines }) => lines.includes('leader'))!
      for (const follower of processes) if (follower !== leader) await follower.said(`follows ${leader.pid}`)
      leader.child.kill('SIGKILL')
      processes.splice(processes.indexOf(leader), 1, startProcess())
    }
  }, 60_000)

  test('processes that start together agree on one leader', async () => {
    const processes = Array.from({ length: 4 }, startProcess)
    await expect.poll(() => processes.every(({ lines }) => lines.length >= 1), { timeout: 15_000 }).toBe(true)
    expect(processes.filter(({ lines }) => lines[0] === 'leader')).toHaveLength(1)
  })
})
