/** The benches run, with numbers too small to measure anything, and tell what they are to tell; no time is judged here. */
import { expect, it } from 'vitest'
import { describeWith } from '@sealpost/testing/components/describe-with'
import { type Ended, ROOT, startProgram } from '@sealpost/testing/components/programs'

const NODE_FLAGS = ['--conditions=development', '--disable-warning=ExperimentalWarning']

async function bench(name: string, ...args: string[]): Promise<Ended> {
  return startProgram(process.execPath, [...NODE_FLAGS, `bench/${name}.ts`, '--no-fsync', '--json', ...args], { cwd: ROOT }).ended
}

describeWith(['redis-server'], 'benches', () => {
  it.concurrent('deliveries tells cost, pace and waits of each mode, and its ratio to the first', async () => {
    const small = ['--users', '2', '--rounds', '1', '--new-ms', '50', '--warm-ms', '50', '--ms', '200']
    const { code, stdout, stderr } = await bench('deliveries', '--modes', 'crossing,affinity', ...small)
    expect(stderr).toBe('')
    const { modes } = JSON.parse(stdout.toString())
    const positive = expect.toSatisfy((value: number) => value > 0)
    const waits = { p50: positive, p99: positive }
    const of = (mode: string) => ({
      mode,
      says: expect.any(String),
      events_s: positive,
      deliveries_s: positive,
      together: positive,
      cpu_s_per_10k: { nodes: positive, postgres: expect.any(Number), redis: expect.any(Number), sum: positive },
      ratio: { median: positive, least: positive, most: positive },
      ack_ms: waits,
      delivery_ms: waits,
      faults: {},
    })
    expect(modes).toEqual([of('crossing'), of('affinity')])
    expect(code).toBe(0)
  })

  it.concurrent('nodes tells when all were live again, what the nodes held, and that nothing was lost', async () => {
    const { code, stdout, stderr } = await bench(
      'nodes',
      '--users',
      '2',
      '--devices',
      '2',
      '--nodes',
      '2',
      '--per-second',
      '40',
      '--ms',
      '300',
    )
    expect(stderr).toBe('')
    expect(JSON.parse(stdout.toString())).toMatchObject({
      devices: 4,
      lost: 2,
      all_live_ms: expect.any(Number),
      handshakes_s: expect.any(Number),
      refused: 0,
      peak_rss_mib: [expect.any(Number), expect.any(Number)],
      faults: {},
    })
    expect(code).toBe(0)
  })

  it.concurrent('stalled tells what the node held and how long the others waited, before and after', async () => {
    const small = ['--users', '2', '--devices', '3', '--per-second', '40', '--before-ms', '400', '--ms', '300']
    const { code, stdout, stderr } = await bench('stalled', ...small)
    expect(stderr).toBe('')
    expect(JSON.parse(stdout.toString())).toMatchObject({
      sockets: 6,
      stalled: 2,
      rss_mib: { before: expect.any(Number), peak: expect.any(Number), growth: expect.any(Number) },
      delivery_ms: { before: { p99: expect.any(Number) }, after: { p99: expect.any(Number) }, p99_ratio: expect.any(Number) },
      faults: {},
    })
    expect(code).toBe(0)
  })
})
