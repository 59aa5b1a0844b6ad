import { connect, createServer, type AddressInfo, type Socket } from 'node:net'
import { once } from 'node:events'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { run, sealpost, startSealpost, useWorld } from '@sealpost/testing/clients/cli-world'

const world = useWorld()

/** A way to the relay that takes every request for a deletion through and loses the answer. */
function lossyWay() {
  const open = new Set<Socket>()
  const lost: (() => void)[] = []
  let [deafAfter, losesAll] = [false, false]
  const server = createServer((client) => {
    const relay = connect(world.relay.port, '127.0.0.1')
    let losing = false
    for (const socket of [client, relay]) {
      open.add(socket)
      socket.on('error', () => {})
      socket.on('close', () => {
        open.delete(socket)
        client.destroy()
        relay.destroy()
      })
    }
    client.on('data', (bytes) => {
      losing ||= bytes.subarray(0, 20).toString().startsWith('DELETE /api/user ')
      losesAll ||= losing && deafAfter
      relay.write(bytes)
    })
    relay.on('data', (bytes) => {
      if (!losing && !losesAll) return void client.write(bytes)
      if (!losing) return
      if (!losesAll) client.destroy()
      for (const tell of lost.splice(0)) tell()
    })
  })
  return {
    server,
    get url() {
      return `http://127.0.0.1:${(server.address() as AddressInfo).port}`
    },
    /** From the request on nothing comes back any more. */
    set deaf(deaf: boolean) {
      deafAfter = deaf
      losesAll &&= deaf
    },
    /** The relay has answered, and nobody was told. */
    answerLost: () => new Promise<void>((resolve) => lost.push(resolve)),
    async close() {
      for (const socket of open) socket.destroy()
      server.close()
      await once(server, 'close')
    },
  }
}

describe('G04: delete-account whose answer is lost', { timeout: 60_000 }, () => {
  const way = lossyWay()
  beforeAll(async () => {
    await once(way.server.listen(0, '127.0.0.1'), 'listening')
  })
  afterAll(() => way.close())
  let homes = 0
  const init = async (url = way.url): Promise<string> => {
    const home = join(world.folder, `home-${++homes}`)
    await sealpost(['init', '--home', home, '--server', url, '--name', 'laptop', '--recovery-file', `${home}-words`])
    return home
  }
  const expectEmpty = async (home: string): Promise<void> => {
    expect(await run(['status', '--home', home])).toMatchObject({ code: 4, stderr: expect.stringContaining('holds no device') })
    await sealpost(['init', '--home', home, '--server', world.relay.url, '--name', 'new', '--recovery-file', `${home}-new-words`])
  }

  test('the connection hears of the end: it is done, and the home is empty', async () => {
    const home = await init()
    const ended = await run(['delete-account', '--home', home, '--yes'])
    expect(ended).toMatchObject({ code: 0, stderr: expect.stringContaining('the account is gone from the server') })
    expect(ended.stdout.toString()).toBe('')
    await expectEmpty(home)
  })

  test('killed before it heard anything: run again it is done', async () => {
    const home = await init()
    way.deaf = true
    const answer = way.answerLost()
    using first = startSealpost(['delete-account', '--home', home, '--yes'])
    await answer
    first.kill('SIGKILL')
    expect((await first.ended).signal).toBe('SIGKILL')
    way.deaf = false
    expect(await run(['status', '--home', home])).toMatchObject({ code: 4, stderr: expect.stringContaining('sealpost delete-account') })
    expect(await run(['delete-account', '--home', home, '--yes'])).toMatchObject({ code: 0 })
    await expectEmpty(home)
  })

  test('of an account that another device deleted, it empties the home', async () => {
    expect(await run(['delete-account', '--home', world.phone, '--yes'])).toMatchObject({ code: 0 })
    expect(await run(['delete-account', '--home', world.laptop, '--yes'])).toMatchObject({ code: 0 })
    for (const home of [world.phone, world.laptop])
      expect(await run(['delete-account', '--home', home, '--yes'])).toMatchObject({ code: 4 })
  })
})
