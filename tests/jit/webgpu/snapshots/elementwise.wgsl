@group(0) @binding(0) var<storage, read> x0: array<f32>;
@group(0) @binding(1) var<storage, read_write> y: array<f32>;
fn exactMax(p0: f32, p1: f32) -> f32 {
  return select(select(max(p0, p1), p1, ((bitcast<u32>(p1) & 2147483647u) > 2139095040u)), p0, ((bitcast<u32>(p0) & 2147483647u) > 2139095040u));
}
@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) localIndex: u32) {
  let index = ((workgroup.x * 64u) + localIndex);
  if ((index >= 18u)) {
    return;
  }
  let place = (i32(index) % 3i);
  let rest = (i32(index) / 3i);
  let element = (rest + (place * 6i));
  let value0 = x0[element];
  y[index] = exactMax(((value0 * 2.0f) + 1.0f), 0.0f);
}
