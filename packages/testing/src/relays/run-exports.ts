/** `node run-exports.ts DATABASE_URL`: an export server; tells its port, and when asked the most bytes that were queued in it. Ends with its parent. */
import { startExportServer } from './export-server.ts'

const LOOK_MS = 10

const { relay, port } = await startExportServer(process.argv[2] ?? '')
let queued_max = 0
setInterval(() => {
  queued_max = Math.max(queued_max, relay.outbound.bytes)
}, LOOK_MS)
process.on('message', () => process.send?.({ queued_max }))
process.on('disconnect', () => process.exit())
process.send?.({ port })
