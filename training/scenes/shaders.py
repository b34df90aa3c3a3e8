"""The GLSL programs of the renderer: shadow map, surfaces, sky, and the resolve from 2x2 samples to one pixel."""

VERTEX = """
#version 330
uniform mat4 view_projection;
uniform mat4 shadow_matrix;
uniform float shadow_bias_m;
in vec3 in_position; in vec3 in_normal; in vec2 in_uv;
in vec4 in_row0; in vec4 in_row1; in vec4 in_row2; in vec4 in_tint; in vec4 in_extra;
out vec3 world; out vec3 normal; out vec2 uv; out vec3 in_shadow;
flat out vec4 tint; flat out vec3 surface;
void main() {
    vec4 p = vec4(in_position, 1.0);
    world = vec3(dot(in_row0, p), dot(in_row1, p), dot(in_row2, p));
    mat3 m = transpose(mat3(in_row0.xyz, in_row1.xyz, in_row2.xyz));
    // The cofactor matrix turns normals rightly under uneven scale, and needs no inverse.
    normal = mat3(cross(m[1], m[2]), cross(m[2], m[0]), cross(m[0], m[1])) * in_normal;
    normal = normalize(normal) * sign(dot(cross(m[0], m[1]), m[2]));
    float tile = in_extra.x;
    if (tile > 0.0) {  // lay the texture along the face, in metres of the scaled object
        vec3 q = in_position * vec3(length(m[0]), length(m[1]), length(m[2])) / tile;
        vec3 a = abs(in_normal);
        uv = a.x > a.y && a.x > a.z ? vec2(q.z, -q.y) : a.y > a.z ? q.xz : vec2(q.x, -q.y);
    } else {
        uv = in_uv * -tile;
    }
    tint = in_tint;
    surface = in_extra.yzw;
    vec4 s = shadow_matrix * vec4(world + shadow_bias_m * normal, 1.0);
    in_shadow = s.xyz / s.w * 0.5 + 0.5;
    gl_Position = view_projection * vec4(world, 1.0);
}
"""

SURFACE = """
#version 330
uniform sampler2D albedo;
uniform sampler2DShadow shadow_map;
uniform mat3 to_camera;
uniform vec3 eye;
uniform vec4 key;          // xyz direction or position, w 1 for a lamp
uniform vec3 key_colour;
uniform vec3 fill; uniform vec3 fill_colour;
uniform vec3 ambient[6];   // +x -x +y -y +z -z
uniform vec4 haze;         // colour, density per metre
in vec3 world; in vec3 normal; in vec2 uv; in vec3 in_shadow;
flat in vec4 tint; flat in vec3 surface;  // gloss, label, instance
layout(location = 0) out vec4 out_colour;
layout(location = 1) out float out_depth;
layout(location = 2) out vec4 out_normal;
layout(location = 3) out vec4 out_albedo;
void main() {
    vec4 texel = texture(albedo, uv);
    CUTOUT
    vec3 base = texel.rgb * tint.rgb;
    base *= base;
    out_albedo = vec4(sqrt(base), surface.z / 255.0);
    vec3 n = normalize(normal);
    vec3 to_eye = eye - world;
    float distance = length(to_eye);
    to_eye /= distance;
    n = dot(n, to_eye) < 0.0 ? -n : n;
    vec3 to_key = key.xyz - world * key.w;
    float reach = 1.0;
    if (key.w > 0.5) { float d2 = dot(to_key, to_key); reach = 5.0 / (1.0 + d2); }
    to_key = normalize(to_key);
    float lit = 1.0;
    if (all(lessThan(abs(in_shadow - 0.5), vec3(0.5)))) lit = texture(shadow_map, in_shadow);
    vec3 key_light = key_colour * (reach * lit);
    vec3 light = key_light * max(dot(n, to_key), 0.0);
    vec3 to_fill = fill - world;
    float fill2 = dot(to_fill, to_fill);
    light += fill_colour * (max(dot(n, to_fill) * inversesqrt(fill2), 0.0) * 5.0 / (1.0 + fill2));
    vec3 n2 = n * n;
    light += n2.x * ambient[n.x < 0.0 ? 1 : 0] + n2.y * ambient[n.y < 0.0 ? 3 : 2] + n2.z * ambient[n.z < 0.0 ? 5 : 4];
    float highlight = max(dot(n, normalize(to_key + to_eye)), 0.0);
    highlight *= highlight; highlight *= highlight; highlight *= highlight;
    highlight *= highlight * highlight * surface.x;  // to the power of 24
    vec3 colour = mix(base * light, base * 1.6, tint.a) + key_light * highlight * 0.6;
    colour = mix(colour, haze.rgb, 1.0 - exp(-distance * haze.a));
    colour = 1.0 - exp(-1.25 * colour);
    out_colour = vec4(sqrt(colour), 1.0);
    out_depth = 1.0 / gl_FragCoord.w;  // clip w is z along the optical axis
    out_normal = vec4(to_camera * n * 0.5 + 0.5, surface.y / 255.0);
}
"""

SHADOW = """
#version 330
uniform sampler2D albedo;
in vec2 uv;
void main() {
    CUTOUT
}
"""

SCREEN = """
#version 330
out vec2 at;
void main() {
    at = vec2(gl_VertexID & 1, gl_VertexID >> 1) * 2.0;
    gl_Position = vec4(at * 2.0 - 1.0, 1.0, 1.0);
}
"""

SKY = """
#version 330
uniform sampler2D sky;
uniform mat3 to_world;
uniform vec2 half_size;    // tangent of half the field of view
uniform float gain;
in vec2 at;
layout(location = 0) out vec4 out_colour;
layout(location = 1) out float out_depth;
layout(location = 2) out vec4 out_normal;
layout(location = 3) out vec4 out_albedo;
void main() {
    out_albedo = vec4(0.0);
    vec3 ray = normalize(to_world * vec3((at * 2.0 - 1.0) * half_size, 1.0));
    vec2 uv = vec2(atan(ray.x, -ray.z) / 6.2831853 + 0.5, acos(clamp(ray.y, -1.0, 1.0)) / 3.1415927);
    vec3 colour = textureLod(sky, uv, 0.0).rgb;
    out_colour = vec4(min(colour * gain, 1.0), 1.0);
    out_depth = 0.0;
    out_normal = vec4(0.5, 0.5, 0.5, 0.0);
}
"""

RESOLVE = """
#version 330
uniform sampler2D colours;
uniform sampler2D depths;
uniform sampler2D normals;
uniform sampler2D albedos;
uniform vec2 half_size;
uniform float reach_m;     // how far one surface darkens another
uniform float strength;
in vec2 at;
layout(location = 0) out vec4 out_colour;
layout(location = 1) out float out_depth;
layout(location = 2) out vec4 out_normal;
layout(location = 3) out vec4 out_albedo;
vec3 srgb(vec3 linear) {
    vec3 bright = 1.055 * pow(linear, vec3(1.0 / 2.4)) - 0.055;
    return mix(bright, 12.92 * linear, lessThan(linear, vec3(0.0031308)));
}
vec3 point(ivec2 p, float z, vec2 size) {
    return vec3(((vec2(p) + 0.5) / size * 2.0 - 1.0) * half_size, 1.0) * z;
}
float openness(ivec2 p, float z, vec3 n) {
    ivec2 last = textureSize(depths, 0) - 1;
    vec2 size = vec2(last + 1);
    vec3 here = point(p, z, size);
    float radius = clamp(reach_m / (z * half_size.y) * 0.5 * size.y, 3.0, 60.0);
    float dark = 0.0;
    for (int k = 0; k < 10; k++) {
        float angle = float(k) * 2.3999632 + 0.4;
        vec2 step = radius * sqrt((float(k) + 0.5) / 10.0) * vec2(cos(angle), sin(angle));
        ivec2 q = clamp(p + ivec2(step), ivec2(0), last);
        float other = texelFetch(depths, q, 0).r;
        vec3 v = point(q, other > 0.0 ? other : 1e4, size) - here;
        float d2 = dot(v, v);
        dark += max(dot(v, n) * inversesqrt(d2 + 1e-9) - 0.12, 0.0) / (1.0 + d2 / (reach_m * reach_m));
    }
    return clamp(1.0 - strength * dark / 5.0, 0.0, 1.0);
}
void main() {
    ivec2 p = ivec2(gl_FragCoord.xy) * 2;
    vec3 sum = vec3(0.0);
    for (int k = 0; k < 4; k++) {
        vec3 c = texelFetch(colours, p + ivec2(k & 1, k >> 1), 0).rgb;
        sum += c * c;
    }
    out_depth = texelFetch(depths, p, 0).r;      // one sample: depth is never averaged over an edge
    out_normal = texelFetch(normals, p, 0);
    vec3 n = out_normal.rgb * 2.0 - 1.0;
    vec3 linear = sum / 4.0 * (out_depth > 0.0 ? openness(p, out_depth, n) : 1.0);
    out_colour = vec4(srgb(linear), 1.0);
    vec4 base = texelFetch(albedos, p, 0);       // one sample too
    out_albedo = vec4(srgb(base.rgb * base.rgb), base.a);
}
"""

HOLES = "if (texture(albedo, uv).a < 0.5) discard;"
