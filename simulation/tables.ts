/** Markdown for people: numbers with three digits that count, and a table of columns. */
export function show(value: number): string {
  const size = Math.abs(value)
  if (size >= 1_000) return Math.round(value).toLocaleString('en-US')
  if (size >= 100 || Number.isInteger(value)) return value.toFixed(0)
  if (size >= 10) return value.toFixed(1)
  return value.toFixed(size >= 0.1 ? 2 : size === 0 ? 0 : 3)
}

export function showBytes(value: number): string {
  const units = ['B', 'kB', 'MB', 'GB', 'TB', 'PB']
  let at = 0
  let rest = value
  for (; rest >= 1_000 && at < units.length - 1; at++) rest /= 1_000
  return `${show(rest)} ${units[at]}`
}

export function showShare(value: number): string {
  return `${(value * 100).toFixed(value === 0 || value >= 0.1 ? 0 : 1)} %`
}

/** `rows`: the name of a figure, and its value in each column. */
export function table(head: readonly string[], rows: readonly (readonly string[])[]): string {
  const line = (cells: readonly string[]): string => `| ${cells.join(' | ')} |`
  return [line(head), `|${head.map((_, i) => (i === 0 ? '---' : '---:')).join('|')}|`, ...rows.map(line)].join('\n')
}
