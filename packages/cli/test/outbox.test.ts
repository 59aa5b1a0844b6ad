import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { DatabaseSync } from 'node:sqlite'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { run, sealpost, startSealpost, useWorld } from '@sealpost/testing/clients/cli-world'

const world = useWorld()

function countPending(home: string): number {
  return count(home, 'outbox where state = 0')
}

function countReceived(home: string): number {
  return count(home, "received where stream_id = 'buffered'")
}

function count(home: string, rows: string): number {
  const db = new DatabaseSync(join(home, 'sealpost.sqlite'), { readOnly: true })
  const row = db.prepare(`select count(*) as n from ${rows}`).get()
  db.close()
  return Number(row?.n)
}

describe('without the server', () => {
  beforeEach(() => world.relay.stop())
  afterEach(async () => {
    await world.relay.stop()
    await world.relay.start()
  })

  test('send keeps the event and ends with 75; the next command sends it first, each once and in order (B04, B06)', async () => {
    const queued = await run(['send', '--home', world.laptop, '--stream', 'later', '--lines'], { input: '1\n2\n' })
    expect(queued.code).toBe(75)
    expect(queued.stderr).toMatch(/2 in the outbox/)
    expect((await run(['send', '--home', world.laptop, '--stream', 'later', '--queue'], { input: '3\n' })).code).toBe(75)
    await world.relay.start()
    const next = await sealpost(['send', '--home', world.laptop, '--stream', 'later'], { input: '4\n' })
    expect(next.stderr).toMatch(/sent 1\n$/)
    const tail = await sealpost(['tail', '--home', world.phone, '--stream', 'later', '--count', '4'])
    expect(tail.stdout.toString()).toBe('1\n2\n3\n4\n')
  })

  test('any next command sends what was left', async () => {
    expect((await run(['send', '--home', world.laptop, '--stream', 'status', '--queue'], { input: 'x' })).code).toBe(75)
    await world.relay.start()
    const status = await sealpost(['status', '--home', world.laptop, '--json'])
    expect(status.stderr).toMatch(/sent 1 from the outbox/)
    expect(JSON.parse(status.stdout.toString())).toMatchObject({ state: 'live', outbox: { pending: 0, rejected: 0 } })
  })

  test('a send that was waiting for the server goes on when it comes', async () => {
    using send = startSealpost(['send', '--home', world.laptop, '--stream', 'waits'], { input: 'x' })
    await world.relay.start()
    const ended = await send.ended
    expect([0, 75]).toContain(ended.code)
    const tail = ['tail', '--home', world.phone, '--stream', 'waits', '--count', '1']
    if (ended.code === 75) await sealpost(['status', '--home', world.laptop])
    expect((await sealpost(tail)).stdout.toString()).toBe('x')
  })

  test('SIGTERM while waiting keeps it (75)', async () => {
    using send = startSealpost(['send', '--home', world.laptop, '--stream', 'term', '--lines'], { input: 'kept\n' })
    await expect.poll(() => countPending(world.laptop), { timeout: 15_000 }).toBe(1)
    send.kill('SIGTERM')
    expect((await send.ended).code).toBe(75)
    await world.relay.start()
    await sealpost(['status', '--home', world.laptop])
    expect((await sealpost(['tail', '--home', world.phone, '--stream', 'term', '--count', '1'])).stdout.toString()).toBe('kept\n')
  })

  test('a large input goes to the disk in bounded memory', async () => {
    const line = `${'x'.repeat(1_000)}\n`
    const input = line.repeat(20_000)
    const queued = await run(['send', '--home', join(world.folder, 'laptop'), '--stream', 'large', '--lines', '--queue'], {
      input,
      env: { NODE_OPTIONS: '--max-old-space-size=48' },
    })
    expect(queued.code).toBe(75)
    expect(queued.stderr).toBe('queued 20000\n')
  })

  test('tail that got its count out of the buffer ends with 0', async () => {
    await world.relay.start()
    using other = startSealpost(['tail', '--home', world.phone, '--stream', 'elsewhere'])
    await sealpost(['send', '--home', world.laptop, '--stream', 'buffered'], { input: 'x' })
    await expect.poll(() => countReceived(world.phone), { timeout: 15_000 }).toBeGreaterThan(0)
    await world.relay.stop()
    other.kill('SIGINT')
    await other.ended
    const tail = await sealpost(['tail', '--home', world.phone, '--stream', 'buffered', '--count', '1', '--idle-exit', '5'])
    expect(tail.stdout.toString()).toBe('x')
  })

  test('tail --idle-exit, revoke and pair end with 69', async () => {
    const [tail, revoke, pair] = await Promise.all([
      run(['tail', '--home', world.phone, '--idle-exit', '1']),
      run(['revoke', 'phone', '--home', world.laptop]),
      run(['pair', '--yes', '--home', world.phone]),
    ])
    for (const ended of [tail, revoke, pair]) {
      expect(ended.code).toBe(69)
      expect(ended.stderr).toMatch(/\n {2}\w/)
    }
  })

  test('devices and status show what this device knows', async () => {
    const devices = await sealpost(['devices', '--home', world.phone, '--json'])
    const names = devices.stdout
      .toString()
      .trim()
      .split('\n')
      .map((line) => (JSON.parse(line) as { name: string }).name)
    expect(names).toEqual(['laptop', 'phone'])
    expect((await sealpost(['status', '--home', world.phone])).stdout.toString()).toMatch(/state +(offline|connecting)/)
  })

  test('init and join end with 69, and leave no recovery file', async () => {
    const file = join(world.folder, 'never.txt')
    const init = await run([
      'init',
      '--home',
      join(world.folder, 'new'),
      '--server',
      world.relay.url,
      '--name',
      'x',
      '--recovery-file',
      file,
    ])
    expect(init.code).toBe(69)
    await expect(readFile(file)).rejects.toThrow(/ENOENT/)
    const join_ = await run([
      'join',
      'K7QM-3XWP-9RTB-D2FH',
      '--home',
      join(world.folder, 'new'),
      '--server',
      world.relay.url,
      '--name',
      'x',
      '--yes',
    ])
    expect(join_.code).toBe(69)
  })
})
