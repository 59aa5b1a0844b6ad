/** How much each may keep when all together have too much: the same for all who have more, and the small lose nothing. Pure. */

/** The greatest level with Σ min(size, level) ≤ `total`, whole; null when all fit as they are. */
export function waterLevel(sizes: Float64Array, total: number): number | null {
  const sorted = sizes.toSorted()
  let below = 0
  for (const [i, size] of sorted.entries()) {
    const many = sorted.length - i
    if (below + size * many > total) return Math.max(0, Math.floor((total - below) / many))
    below += size
  }
  return null
}
