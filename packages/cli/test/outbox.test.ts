import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { DatabaseSync } from 'node:sqlite'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { run, sealpost, startSealpost, useWorld, wrongClock } from '@sealpost/testing/clients/cli-world'

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

  test.each([3_600_000, 400 * 86_400_000])(
    'what was queued with a ttl by a clock that was %i ms ahead, and is right again, is sent and holds up nothing',
    async (ms) => {
      const stream = `ahead${ms}`
      const wrong = { env: { NODE_OPTIONS: `--import=${wrongClock(ms)}` } }
      const send = ['send', '--home', world.laptop, '--stream', stream]
      expect((await run([...send, '--ttl', '1h'], { input: '1', ...wrong })).code).toBe(75)
      await world.relay.start()
      await sealpost(send, { input: '2' })
      expect((await sealpost(['tail', '--home', world.phone, '--stream', stream, '--count', '2'])).stdout.toString()).toBe('12')
    },
  )

  test('what waits is listed and can be dropped, by its id or all of it, without a connection', async () => {
    const queue = (input: string) => run(['send', '--home', world.laptop, '--stream', 'drop', '--lines', '--queue'], { input })
    const outbox = (...args: string[]) => run(['outbox', ...args, '--home', world.laptop])
    await queue('1\n2\n')
    const rows = (await outbox('--json')).stdout
      .toString()
      .trim()
      .split('\n')
      .map((line) => JSON.parse(line) as { event_id: string })
    expect(rows).toMatchObject([
      { stream_id: 'drop', bytes: 2, state: 'pending', code: null, sent: false },
      { stream_id: 'drop', bytes: 2, state: 'pending', code: null, sent: false },
    ])
    expect((await outbox()).stdout.toString()).toMatch(/^ID +STREAM +BYTES +QUEUED +STATE\n[^]* waits\n$/)
    expect(await outbox('drop', rows[0]!.event_id)).toMatchObject({ code: 2, stderr: expect.stringContaining('--yes') as string })
    expect(await outbox('drop', rows[0]!.event_id, '--yes')).toMatchObject({ code: 0, stderr: 'dropped 1\n' })
    expect(await outbox('drop', rows[0]!.event_id, '--yes')).toMatchObject({
      code: 3,
      stderr: expect.stringMatching(/is not in the outbox of this device\n {2}sealpost outbox shows/) as string,
    })
    expect((await outbox('drop', '--yes')).code).toBe(2)
    expect(await outbox('drop', '--all', '--yes')).toMatchObject({ code: 0, stderr: 'dropped 1\n' })
    expect(await outbox()).toMatchObject({ code: 0, stderr: 'the outbox is empty\n' })
  })

  test('what has expired is set aside, the others go on; it is shown with its reason, and sent again by retry', async () => {
    const late = { env: { NODE_OPTIONS: `--import=${wrongClock(-3_600_000)}` } }
    const queue = ['send', '--home', world.laptop, '--stream', 'late', '--queue']
    await run([...queue, '--ttl', '1m'], { input: 'expired', ...late })
    await run(queue, { input: 'behind' })
    const outbox = (...args: string[]) => run(['outbox', ...args, '--home', world.laptop])
    await world.relay.start()
    const status = await sealpost(['status', '--home', world.laptop, '--json'])
    expect(status.stderr).toMatch(/sent 1 from the outbox\n[^]*1 in the outbox was refused and set aside\n {2}sealpost outbox shows why\n$/)
    expect(JSON.parse(status.stdout.toString())).toMatchObject({ outbox: { pending: 0, set_aside: 1 } })
    expect((await outbox()).stdout.toString()).toMatch(/late +7 .*set aside \(event_expired\): The event had expired/)
    await world.relay.stop()
    expect((await outbox('retry', '--all')).code).toBe(75)
    await world.relay.start()
    expect(await outbox('retry', '--all')).toMatchObject({ code: 0, stderr: 'nothing is set aside\n' })
    await sealpost(['status', '--home', world.laptop])
    const tail = await sealpost(['tail', '--home', world.phone, '--stream', 'late', '--count', '2'])
    expect(tail.stdout.toString()).toBe('behindexpired')
  })

  test('send ends with 3 when its event was refused, says where it is, and retry ends with 3 when it is refused again', async () => {
    await world.relay.start({ SEALPOST_QUOTA_STREAMS: '1' })
    const home = join(world.folder, 'one-stream')
    await sealpost(['init', '--home', home, '--server', world.relay.url, '--name', 'x', '--recovery-file', join(world.folder, 'one-words')])
    await sealpost(['send', '--home', home], { input: '1' })
    const refused = await run(['send', '--home', home, '--stream', 'other'], { input: 'x' })
    expect(refused).toMatchObject({ code: 3, stderr: expect.stringMatching(/1 refused \(too_many_streams\)\n.*sealpost outbox/) as string })
    await sealpost(['send', '--home', home], { input: '2' })
    expect(await run(['outbox', 'retry', '--all', '--home', home])).toMatchObject({
      code: 3,
      stderr: expect.stringMatching(/sent 0\n[^]*1 refused again/) as string,
    })
    expect((await run(['outbox', 'drop', '--all', '--yes', '--home', home])).stderr).toBe('dropped 1\n')
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
