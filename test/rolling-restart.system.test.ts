import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { createTestDatabase, type TestDatabase } from '@sealpost/testing/components/test-database'
import { askHaproxy, startShippedHaproxy, startShippedNginx } from '@sealpost/testing/components/shipped-balancers'
import type { Running } from '@sealpost/testing/components/start-component'
import { startRedis } from '@sealpost/testing/components/redis'
import { describeWith } from '@sealpost/testing/components/describe-with'
import { type Node, startNodes } from '@sealpost/testing/relays/nodes'
import { faultsOf, figuresOf, startLoad } from '@sealpost/testing/clients/steady-load'

const LOAD = { accounts: 4, devices: 2, every_ms: 100 }
/** On a machine that has nothing else to do it is well below 1 s. */
const P99_MS_MAX = 5_000

let database: TestDatabase
let folder: string
beforeEach(async () => {
  database = await createTestDatabase()
  folder = await mkdtemp(join(tmpdir(), 'sealpost-rolling-'))
})
afterEach(async () => {
  await database.drop()
  await rm(folder, { recursive: true, force: true })
})

describeWith(['haproxy', 'redis-server'], 'R07: a rolling restart under load behind HAProxy, hints over Redis', () => {
  test('loses nothing, and no application sees it; a relay gets nothing new before its sockets go', { timeout: 120_000 }, async () => {
    await using redis = await startRedis()
    const env = { REDIS_URL: redis.url, SEALPOST_TRUSTED_PROXIES: '127.0.0.1', SEALPOST_DRAIN_NOTICE_S: '3' }
    await using nodes = await startNodes(3, { database_url: database.url, env })
    await using haproxy = await startShippedHaproxy(nodes.list.map(({ port }) => port))
    const relay = (node: Node) => askHaproxy(haproxy, `relay${nodes.list.indexOf(node) + 1}`)
    const status = (node: Node) => relay(node).then((row) => row.status)
    await restartEach(nodes.list, haproxy, async (node) => {
      const stopping = node.stop()
      await expect.poll(() => status(node), { interval: 20, timeout: 5_000 }).toBe('DOWN')
      const { sockets, taken } = await relay(node)
      // its sockets are still there, and nothing new comes to them
      expect(sockets).toBeGreaterThan(0)
      await stopping
      expect(await relay(node)).toEqual({ status: 'DOWN', sockets: 0, taken })
      await node.start()
      await expect.poll(() => status(node), { timeout: 10_000 }).toBe('UP')
    })
  })
})

describeWith(['nginx'], 'R07: a rolling restart under load behind nginx, without Redis', () => {
  test('loses nothing, and no application sees it', { timeout: 120_000 }, async () => {
    await using nodes = await startNodes(3, { database_url: database.url, env: { SEALPOST_TRUSTED_PROXIES: '127.0.0.1' } })
    await using nginx = await startShippedNginx(nodes.list.map(({ port }) => port))
    await restartEach(nodes.list, nginx, async (node) => {
      await node.stop()
      await node.start()
      // whoever was last has come back
      await sleep(1_000)
    })
  })
})

/** Each in turn, while devices talk and a stranger asks. */
async function restartEach(nodes: readonly Node[], balancer: Running, restart: (node: Node) => Promise<void>): Promise<void> {
  const url = `http://127.0.0.1:${balancer.port}`
  const load = await startLoad({ url, folder, ...LOAD })
  const asking = keepAsking(`${url}/.well-known/sealpost.json`)
  try {
    for (const node of nodes) await restart(node)
    const report = await load.end()
    const answers = await asking.end()
    expect(answers.filter((answer) => answer !== '200')).toEqual([])
    expect(await faultsOf(report, database.url)).toEqual([])
    // everybody had to come back
    expect(Math.min(...report.devices.map(({ offline }) => offline))).toBeGreaterThanOrEqual(1)
    const figures = { ...figuresOf(report), asked: answers.length }
    if (process.env['FIGURES'] !== undefined) process.stdout.write(`rolling restart: ${JSON.stringify(figures)}\n`)
    expect(figures.p99_ms).toBeLessThan(P99_MS_MAX)
  } finally {
    await Promise.all([load.abandon(), asking.end()])
  }
}

/** Answers by status, or what kept them away. */
function keepAsking(url: string): { end(): Promise<string[]> } {
  const ending = new AbortController()
  const answers: string[] = []
  const ask = async (): Promise<string> => {
    const response = await fetch(url)
    await response.arrayBuffer()
    return `${response.status}`
  }
  const asked = (async () => {
    for (; !ending.signal.aborted; await sleep(100)) answers.push(await ask().catch(String))
    return answers
  })()
  return {
    end() {
      ending.abort()
      return asked
    },
  }
}
