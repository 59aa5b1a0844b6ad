/** Counts the lines of an export as they come, and holds them against its last one: a copy that is cut is no copy (docs/export.md). */
import { type Bytes, parseJson, SealpostError } from '@sealpost/protocol'
import { createLineSplitter } from './line-splitter.ts'

export type ExportCheck = {
  add(part: Bytes): void
  /** How many lines of each kind. Throws `unreachable` when the export does not end as it should. */
  end(): Record<string, number>
}

/** No line of an export is nearly as long. */
export const LINE_BYTES_MAX = 16 * 1_048_576
const KIND_BYTES = 64
const KIND = /^\{"kind":"([a-z_]{1,32})"/

export function createExportCheck(): ExportCheck {
  const counts: Record<string, number> = {}
  const splitter = createLineSplitter(LINE_BYTES_MAX)
  let last: Bytes | null = null
  const take = (line: Bytes): void => {
    const kind = kindOf(line)
    last = kind === 'end' ? line : null
    if (kind !== 'end' && kind !== 'export') counts[kind] = (counts[kind] ?? 0) + 1
  }
  return {
    add(part) {
      for (const line of splitter.push(part)) take(line)
    },
    end() {
      if (last === null || !isSame(countsOf(last), counts))
        throw new SealpostError('unreachable', 'the export was broken off; nothing of it was kept')
      return counts
    },
  }
}

/** What a line is stands at its beginning. */
function kindOf(line: Bytes): string {
  return KIND.exec(String.fromCharCode(...line.subarray(0, KIND_BYTES)))?.[1] ?? ''
}

function countsOf(line: Bytes): Record<string, unknown> {
  const value = parseJson(line)
  const counts = typeof value === 'object' && value !== null && 'counts' in value ? value.counts : null
  return typeof counts === 'object' && counts !== null ? (counts as Record<string, unknown>) : {}
}

function isSame(told: Record<string, unknown>, found: Record<string, number>): boolean {
  return Object.keys(told).length === Object.keys(found).length && Object.entries(found).every(([kind, count]) => told[kind] === count)
}
