/** `node run-serve.ts DATA_DIR`: a relay in the foreground, on any free port; ends with 0, or prints the code and ends with 1. */
import { SealpostError } from '@sealpost/protocol'
import { serve } from '../../../server/src/serve.ts'

try {
  await serve({ flags: { data: process.argv[2] ?? '', port: '0' } })
} catch (error) {
  process.stderr.write(`${error instanceof SealpostError ? error.code : String(error)}\n`)
  process.exitCode = 1
}
