@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read> words: array<vec4<u32>>;
@group(0) @binding(2) var<storage, read> scales: array<f32>;
@group(0) @binding(3) var<storage, read_write> y: array<f32>;
var<private> infinityBits: u32 = 0x7f800000u;
fn exactExp(p0: f32) -> f32 {
  let x = clamp(p0, -104.0f, 89.0f);
  let n = round((x * 1.442695f));
  let r = ((x - (n * 0.6933594f)) - (n * -0.00021219444f));
  let power = i32(n);
  let half = (power >> 1u);
  let value = ((((((((((((((((0.0001984127f * r) + 0.0013888889f) * r) + 0.008333334f) * r) + 0.041666668f) * r) + 0.16666667f) * r) + 0.5f) * r) + 1.0f) * r) + 1.0f) * bitcast<f32>(((half + 127i) << 23u))) * bitcast<f32>((((power - half) + 127i) << 23u)));
  return select(select(select(value, 0.0f, (p0 < -104.0f)), bitcast<f32>(infinityBits), (p0 > 89.0f)), p0, ((bitcast<u32>(p0) & 2147483647u) > 2139095040u));
}
fn exactTanh(p0: f32) -> f32 {
  let size = abs(p0);
  let square = (p0 * p0);
  return select(select(bitcast<f32>(((bitcast<u32>((1.0f - (2.0f / (exactExp((size + size)) + 1.0f)))) & 2147483647u) | (bitcast<u32>(p0) & 2147483648u))), (p0 + ((p0 * square) * ((((((((-0.0057049887f * square) + 0.020639088f) * square) + -0.053739715f) * square) + 0.13331442f) * square) + -0.3333328f))), (size < 0.625f)), p0, ((bitcast<u32>(p0) & 2147483647u) > 2139095040u));
}
@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) localIndex: u32) {
  let index = ((workgroup.x * 64u) + localIndex);
  if ((index >= 18u)) {
    return;
  }
  let feature = (index % 18u);
  let first = (index / 18u);
  let scaleRow = feature;
  let row = (feature * 2u);
  let start0 = (min(first, 0u) * 24u);
  var sum0 = vec4<f32>(0.0f);
  for (var at = 0u; at < 2u; at += 1u) {
    let begin = (at * 16u);
    let packed = words[(row + at)];
    let weight = f32(((bitcast<i32>(packed.x) << 24u) >> 24u));
    let weight1 = f32(((bitcast<i32>(packed.x) << 16u) >> 24u));
    let weight2 = f32(((bitcast<i32>(packed.x) << 8u) >> 24u));
    let weight3 = f32((bitcast<i32>(packed.x) >> 24u));
    let weight4 = f32(((bitcast<i32>(packed.y) << 24u) >> 24u));
    let weight5 = f32(((bitcast<i32>(packed.y) << 16u) >> 24u));
    let weight6 = f32(((bitcast<i32>(packed.y) << 8u) >> 24u));
    let weight7 = f32((bitcast<i32>(packed.y) >> 24u));
    let weight8 = f32(((bitcast<i32>(packed.z) << 24u) >> 24u));
    let weight9 = f32(((bitcast<i32>(packed.z) << 16u) >> 24u));
    let weight10 = f32(((bitcast<i32>(packed.z) << 8u) >> 24u));
    let weight11 = f32((bitcast<i32>(packed.z) >> 24u));
    let weight12 = f32(((bitcast<i32>(packed.w) << 24u) >> 24u));
    let weight13 = f32(((bitcast<i32>(packed.w) << 16u) >> 24u));
    let weight14 = f32(((bitcast<i32>(packed.w) << 8u) >> 24u));
    let weight15 = f32((bitcast<i32>(packed.w) >> 24u));
    sum0 = (sum0 + vec4<f32>(((((weight * x[(start0 + begin)]) + (weight1 * select(0.0f, x[(start0 + min((begin + 1u), 23u))], ((begin + 1u) < 24u)))) + (weight2 * select(0.0f, x[(start0 + min((begin + 2u), 23u))], ((begin + 2u) < 24u)))) + (weight3 * select(0.0f, x[(start0 + min((begin + 3u), 23u))], ((begin + 3u) < 24u)))), ((((weight4 * select(0.0f, x[(start0 + min((begin + 4u), 23u))], ((begin + 4u) < 24u))) + (weight5 * select(0.0f, x[(start0 + min((begin + 5u), 23u))], ((begin + 5u) < 24u)))) + (weight6 * select(0.0f, x[(start0 + min((begin + 6u), 23u))], ((begin + 6u) < 24u)))) + (weight7 * select(0.0f, x[(start0 + min((begin + 7u), 23u))], ((begin + 7u) < 24u)))), ((((weight8 * select(0.0f, x[(start0 + min((begin + 8u), 23u))], ((begin + 8u) < 24u))) + (weight9 * select(0.0f, x[(start0 + min((begin + 9u), 23u))], ((begin + 9u) < 24u)))) + (weight10 * select(0.0f, x[(start0 + min((begin + 10u), 23u))], ((begin + 10u) < 24u)))) + (weight11 * select(0.0f, x[(start0 + min((begin + 11u), 23u))], ((begin + 11u) < 24u)))), ((((weight12 * select(0.0f, x[(start0 + min((begin + 12u), 23u))], ((begin + 12u) < 24u))) + (weight13 * select(0.0f, x[(start0 + min((begin + 13u), 23u))], ((begin + 13u) < 24u)))) + (weight14 * select(0.0f, x[(start0 + min((begin + 14u), 23u))], ((begin + 14u) < 24u)))) + (weight15 * select(0.0f, x[(start0 + min((begin + 15u), 23u))], ((begin + 15u) < 24u))))));
  }
  var totals: array<f32, 1>;
  let rowScale = scales[(scaleRow + min((0u / 24u), 0u))];
  totals[0u] = (((sum0.x + sum0.y) + (sum0.z + sum0.w)) * rowScale);
  for (var r = 0u; r < 1u; r += 1u) {
    let row1 = (first + r);
    let at1 = ((row1 * 18u) + feature);
    y[at1] = exactTanh(totals[r]);
  }
}
