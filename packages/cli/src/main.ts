/** The `sealpost` command: parses, runs one command, ends with a documented exit code (`exit-codes.ts`). */
import { watchOutput } from './output.ts'
import { createProgram, report } from './program.ts'

async function main(argv: readonly string[]): Promise<void> {
  watchOutput()
  try {
    await createProgram().parseAsync([...argv])
  } catch (error) {
    process.exitCode = report(error)
  }
  // A pending read of stdin would keep the process; everything written is with the system by now.
  process.exit()
}

await main(process.argv)
