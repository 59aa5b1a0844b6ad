/**
 * `node home-process.ts DIR`: one process of a home, for tests. It leads or follows, says so on stdout, takes over when its
 * leader ends, and answers requests of followers with its own process id.
 */
import { EMPTY } from '@sealpost/protocol'
import { openHome } from '../../../client/src/node/home.ts'

const home = await openHome(process.argv[2] ?? '')

for (;;) {
  const seat = await home.coordination.lead()
  process.stdout.write(`${seat.role}\n`)
  if (seat.role === 'leader') {
    seat.onRequest(async () => ({ head: { pid: process.pid }, body: EMPTY }))
    seat.onWake(() => process.stdout.write('woken\n'))
    break
  }
  const { head } = await seat.request({ head: {}, body: EMPTY }).catch(() => ({ head: { pid: 'gone' } }))
  process.stdout.write(`follows ${String(head.pid)}\n`)
  seat.wake()
  await seat.ended
}
