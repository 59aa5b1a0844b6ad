/** The order in which test files start: those that take longest first, so that none of them goes on alone at the end. */
import { BaseSequencer, type TestSpecification } from 'vitest/node'

/** More than half a minute each, most of which is waiting; a file that is gone from here costs time and nothing else. */
const LONG = /\/(crash|deletion|rest-fuzz|rolling-restart|races|workers|refusals|pooler|network|hostile-server|exchange)(\.\w+)?\.test\.ts$/

export class LongFirst extends BaseSequencer {
  override async sort(files: TestSpecification[]): Promise<TestSpecification[]> {
    const [long, rest] = [files.filter(isLong), files.filter((file) => !isLong(file))]
    return [...(await super.sort(long)), ...(await super.sort(rest))]
  }
}

function isLong({ moduleId }: TestSpecification): boolean {
  return LONG.test(moduleId)
}
