import { spawn } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { open, truncate, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { openHome } from '@sealpost/client/node'
import { describe, expect, test } from 'vitest'
import { copyHome, run, sealpost, startSealpost, useWorld } from '@sealpost/testing/clients/cli-world'
import { startProgram } from '@sealpost/testing/components/programs'

const world = useWorld()

/** The arguments of a process that runs the command as a test does. */
const CLI = ['--conditions=development', '--disable-warning=ExperimentalWarning', join(import.meta.dirname, '..', 'src', 'main.ts')]

async function received(stream: string, ...args: string[]): Promise<Buffer> {
  return (await sealpost(['tail', '--home', world.phone, '--stream', stream, ...args])).stdout
}

async function readFrom(path: string, position: number): Promise<string> {
  await using file = await open(path)
  const { size } = await file.stat()
  const { buffer } = await file.read(Buffer.alloc(size - position), { position })
  return buffer.toString()
}

describe('send and tail', () => {
  test('an event arrives byte for byte, and nothing else is on stdout (B04)', async () => {
    const data = Buffer.concat([randomBytes(5_000), Buffer.from('\r\n\0\n')])
    const sent = await sealpost(['send', '--home', world.laptop, '--stream', 'bytes'], { input: data })
    expect(sent.stderr).toBe('sent 1\n')
    expect(sent.stdout.length).toBe(0)
    expect(await received('bytes', '--count', '1')).toEqual(data)
  })

  test('an event of which a full disk took a part is not passed: it comes again whole (74)', async () => {
    const lines = Array.from({ length: 150 }, (_, i) => `${String(i).padStart(3, '0')} ${'x'.repeat(61)}\n`)
    await sealpost(['send', '--home', world.laptop, '--stream', 'full', '--lines'], { input: lines.join('') })
    // room for 62 events and a half in a file that may not grow beyond its limit
    const [limit, room] = [2 ** 30, 62 * 66 + 33]
    const file = join(world.folder, 'nearly full')
    await writeFile(file, '')
    await truncate(file, limit - room)
    const tail = [process.execPath, ...CLI, 'tail', '--home', world.phone, '--stream', 'full', '--count', '150']
    const shell = `ulimit -f ${limit / 512}; exec "$@" >> '${file}'`
    const ended = await startProgram('sh', ['-c', shell, 'sh', ...tail]).ended
    expect([ended.code, ended.stderr]).toEqual([74, expect.stringMatching(/larger than this process may write[^]*ulimit -f/)])
    const written = await readFrom(file, limit - room)
    expect(written).toBe(lines.join('').slice(0, room))
    expect((await received('full', '--count', String(150 - 62))).toString()).toBe(lines.slice(62).join(''))
  })

  test('an empty input is an event of no bytes', async () => {
    await sealpost(['send', '--home', world.laptop, '--stream', 'empty'])
    expect(JSON.parse((await received('empty', '--count', '1', '--json')).toString())).toMatchObject({
      data: '',
      stream_id: 'empty',
      stream_seq: 1,
    })
  })

  test('--lines: each line with its terminator is an event, joined they are the input (B04, G14)', async () => {
    const input = Buffer.concat([Buffer.from('one\r\n\n'), Buffer.from([0xff, 0xfe, 0x00, 0x0a]), Buffer.from('no terminator')])
    const sent = await sealpost(['send', '--home', world.laptop, '--stream', 'lines', '--lines'], { input })
    expect(sent.stderr).toBe('sent 4\n')
    expect(await received('lines', '--count', '4')).toEqual(input)
    const json = (await received('lines', '--from', 'start', '--count', '4', '--json')).toString().trim().split('\n')
    expect(json.map((line) => JSON.parse(line) as Record<string, unknown>)).toMatchObject([
      { data: 'one\r\n', stream_seq: 1, type: 'app', from: { name: 'laptop' }, redelivered: false },
      { data: '\n', stream_seq: 2 },
      { data_b64: Buffer.from([0xff, 0xfe, 0x00, 0x0a]).toString('base64'), stream_seq: 3 },
      { data: 'no terminator', stream_seq: 4 },
    ])
  })

  test('a file is sent with its type', async () => {
    const file = join(world.folder, 'a file')
    await writeFile(file, 'content')
    await sealpost(['send', file, '--home', world.laptop, '--stream', 'file', '--type', 'note', '--ttl', '1h'])
    expect(JSON.parse((await received('file', '--count', '1', '--json')).toString())).toMatchObject({ data: 'content', type: 'note' })
  })

  test('an input above the limit is refused with the limit named, and nothing is queued (3)', async () => {
    const refused = await run(['send', '--home', world.laptop, '--stream', 'big'], { input: Buffer.alloc(262_141) })
    expect(refused.code).toBe(3)
    expect(refused.stderr).toMatch(/longer than 262140 bytes.*\n {2}\S/)
    await sealpost(['send', '--home', world.laptop, '--stream', 'big'], { input: Buffer.alloc(262_140, 7) })
    expect(await received('big', '--count', '1')).toEqual(Buffer.alloc(262_140, 7))
  })

  test('the lines before one that is too long are sent (3)', async () => {
    const input = Buffer.concat([Buffer.from('first\nsecond\n'), Buffer.alloc(300_000, 65), Buffer.from('\nlast\n')])
    const refused = await run(['send', '--home', world.laptop, '--stream', 'long', '--lines'], { input })
    expect(refused.code).toBe(3)
    expect(refused.stderr).toMatch(/line 3 is longer than the limit of 262140 bytes/)
    expect(refused.stderr).toMatch(/sent 2/)
    expect((await received('long', '--count', '2')).toString()).toBe('first\nsecond\n')
  })

  test('last goes on where this device stopped, start reads all and moves no place, now shows what comes', async () => {
    const send = (text: string): Promise<unknown> => sealpost(['send', '--home', world.laptop, '--stream', 'place'], { input: text })
    await send('1')
    await send('2')
    expect((await received('place', '--count', '1')).toString()).toBe('1')
    expect((await received('place', '--from', 'start', '--idle-exit', '1')).toString()).toBe('12')
    expect((await received('place', '--from', 'now', '--idle-exit', '1')).toString()).toBe('')
    await send('3')
    expect((await received('place', '--idle-exit', '1')).toString()).toBe('23')
    expect((await received('place', '--idle-exit', '1')).toString()).toBe('')
  })

  test('tail --from start leaves out the events of this device, as tail does live', async () => {
    await sealpost(['send', '--home', world.laptop, '--stream', 'own'], { input: 'mine' })
    await sealpost(['send', '--home', world.phone, '--stream', 'own'], { input: 'theirs' })
    const own = await sealpost(['tail', '--home', world.laptop, '--stream', 'own', '--from', 'start', '--idle-exit', '1'])
    expect(own.stdout.toString()).toBe('theirs')
  })

  test('tail in one process and send in another work together on one home, both ways', async () => {
    using tail = startSealpost(['tail', '--home', world.laptop, '--stream', 'both', '--count', '2'])
    using other = startSealpost(['tail', '--home', world.phone, '--stream', 'both', '--count', '1'])
    await sleep(500)
    await sealpost(['send', '--home', world.laptop, '--stream', 'both'], { input: 'from laptop' })
    await sealpost(['send', '--home', world.phone, '--stream', 'both'], { input: 'a' })
    await sealpost(['send', '--home', world.phone, '--stream', 'both'], { input: 'b' })
    expect((await other.ended).stdout.toString()).toBe('from laptop')
    expect((await tail.ended).stdout.toString()).toBe('ab')
  })

  test('a follower takes over when the leading process is killed, and loses nothing (B06)', async () => {
    using leader = startSealpost(['tail', '--home', world.phone, '--stream', 'elsewhere'])
    await sleep(800)
    using follower = startSealpost(['tail', '--home', world.phone, '--stream', 'taken', '--count', '3'])
    await sleep(800)
    await sealpost(['send', '--home', world.laptop, '--stream', 'taken'], { input: '1' })
    leader.kill('SIGKILL')
    await sealpost(['send', '--home', world.laptop, '--stream', 'taken', '--lines'], { input: '2\n3\n' })
    const ended = await follower.ended
    expect(ended.stdout.toString()).toBe('12\n3\n')
    expect(ended.code).toBe(0)
  })

  test('a tail that is killed shows the last events again at most, never too few', async () => {
    await sealpost(['send', '--home', world.laptop, '--stream', 'killed', '--lines'], { input: 'a\nb\n' })
    using tail = startSealpost(['tail', '--home', world.phone, '--stream', 'killed', '--json'])
    await tail.printed(/"b\\n"/)
    tail.kill('SIGKILL')
    await tail.ended
    await sealpost(['send', '--home', world.laptop, '--stream', 'killed', '--lines'], { input: 'c\n' })
    const again = (await received('killed', '--json', '--idle-exit', '1')).toString().trim().split('\n')
    const events = again.map((line) => JSON.parse(line) as { data: string; redelivered: boolean })
    expect(events.at(-1)).toMatchObject({ data: 'c\n', redelivered: false })
    for (const event of events.slice(0, -1)) expect(event.redelivered).toBe(true)
  })

  test('a reader that goes away ends tail quietly with 0', async () => {
    await sealpost(['send', '--home', world.laptop, '--stream', 'pipe', '--lines'], { input: 'x'.repeat(100).concat('\n').repeat(5_000) })
    const tail = spawn(process.execPath, [...CLI, 'tail', '--home', world.phone, '--stream', 'pipe'], { stdio: ['ignore', 'pipe', 'pipe'] })
    await once(tail.stdout, 'data')
    tail.stdout.destroy()
    let stderr = ''
    tail.stderr.on('data', (text: Buffer) => (stderr += text.toString()))
    expect((await once(tail, 'exit'))[0]).toBe(0)
    expect(stderr).toBe('')
  })

  test('an event that could not be written is not taken: the next tail begins with it', async () => {
    await sealpost(['send', '--home', world.laptop, '--stream', 'unread', '--lines'], { input: '1\n2\n' })
    const tail = spawn(process.execPath, [...CLI, 'tail', '--home', world.phone, '--stream', 'unread'], {
      stdio: ['ignore', 'pipe', 'ignore'],
    })
    tail.stdout.destroy()
    expect((await once(tail, 'exit'))[0]).toBe(0)
    expect((await received('unread', '--count', '2')).toString()).toBe('1\n2\n')
  })

  test('an alarm that this device has stored is shown, and tail ends with 6 (B01)', async () => {
    const path = await copyHome(world.phone, join(world.folder, 'alarmed'))
    const home = await openHome(path)
    const alarm = { is: 'alarm', position: 0, device_id: 'x', reason: 'log_withheld' }
    const item = { is: 'notice', position: 0, stream_id: null, notice: JSON.stringify(alarm) } as const
    await home.store.commitReceived({ items: [item], heads: [], acks: [], alarms: [] })
    await home.close()
    const ended = await run(['tail', '--home', path, '--stream', 'alarms', '--idle-exit', '0.5'])
    expect(ended.code).toBe(6)
    expect(ended.stderr).toMatch(/ALARM: the server withholds/)
  })

  test('tail ends with 0 on SIGINT', async () => {
    using tail = startSealpost(['tail', '--home', world.phone, '--stream', 'signal'])
    await untilLed(world.phone)
    tail.kill('SIGINT')
    expect(await tail.ended).toMatchObject({ code: 0 })
  })

  test('send that is interrupted before the input has ended sends nothing, and says so (3)', async () => {
    const send = spawn(process.execPath, [...CLI, 'send', '--home', world.laptop, '--stream', 'cut'], { stdio: ['pipe', 'ignore', 'pipe'] })
    let stderr = ''
    send.stderr.on('data', (text: Buffer) => (stderr += text.toString()))
    send.stdin.write('half')
    await untilLed(world.laptop)
    const ended = once(send, 'exit')
    send.kill('SIGINT')
    expect((await ended)[0]).toBe(3)
    expect(stderr).toMatch(/nothing was sent/)
  })

  test('send --lines passes each line on as it comes, and ends with 75 when interrupted', async () => {
    const send = spawn(process.execPath, [...CLI, 'send', '--home', world.laptop, '--stream', 'slow', '--lines'], {
      stdio: ['pipe', 'ignore', 'pipe'],
    })
    let stderr = ''
    send.stderr.on('data', (text: Buffer) => (stderr += text.toString()))
    send.stdin.write('now\npart')
    expect((await received('slow', '--count', '1')).toString()).toBe('now\n')
    const ended = once(send, 'exit')
    send.kill('SIGINT')
    expect((await ended)[0]).toBe(75)
    expect(stderr).toMatch(/sent 1/)
    expect(stderr).toMatch(/interrupted/)
  })
})

/** A command listens to signals before it opens its home: once it leads there, it hears them. */
async function untilLed(home: string): Promise<void> {
  for (let i = 0; i < 20; i++) {
    const { stdout } = await run(['status', '--home', home, '--json'])
    if ((JSON.parse(stdout.toString()) as { role: string }).role === 'follower') return
  }
}
