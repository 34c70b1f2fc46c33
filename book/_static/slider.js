// The slider over β in the chapter "beta": its page carries the pictures, one strip below the other
// in one image, and the numbers as JSON. Without this script it shows one β, as the notebook does.
"use strict";
document.addEventListener("DOMContentLoaded", () => {
  const slider = document.querySelector(".beta-slider");
  if (!slider) return;
  const state = JSON.parse(slider.querySelector("script").textContent);
  const get = id => document.getElementById(`beta-slider-${id}`);
  const n = state.rows.length, input = get("input"), map = get("map"), c = map.getContext("2d");

  // Posterior means, the unit circle, and the name of each class in its middle.
  function draw(mu) {
    c.fillStyle = "#fff";
    c.fillRect(0, 0, 480, 480);
    state.labels.forEach((label, k) => {
      c.fillStyle = state.colours[label];
      c.fillRect(238 + 2 * mu[2 * k], 238 - 2 * mu[2 * k + 1], 5, 5);
    });
    c.strokeStyle = "#555";
    c.lineWidth = 3;
    c.beginPath();
    c.arc(240, 240, 48, 0, 7);
    c.stroke();
    Object.assign(c, {font: "bold 24px sans-serif", lineWidth: 5, textAlign: "center",
      textBaseline: "middle", strokeStyle: "#fff", fillStyle: "#000"});
    for (let digit = 0; digit < 10; digit++) {
      const ks = [...state.labels.keys()].filter(k => state.labels[k] === digit);
      const middle = o => 2 * ks.reduce((sum, k) => sum + mu[2 * k + o], 0) / ks.length;
      const at = [240 + middle(0), 240 - middle(1)];
      c.strokeText(digit, ...at);
      c.fillText(digit, ...at);
    }
  }

  function show() {
    const i = Number(input.value), [beta, kl, bce, live] = state.rows[i];
    get("beta").textContent = beta;
    input.setAttribute("aria-valuetext", `beta ${beta}`);
    // Strips 2i and 2i + 1 of the 2n in the image.
    get("rec").style.backgroundPositionY = `${100 * (2 * i) / (2 * n - 1)}%`;
    get("sam").style.backgroundPositionY = `${100 * (2 * i + 1) / (2 * n - 1)}%`;
    get("rec").setAttribute("aria-label", `Their reconstructions at beta ${beta}`);
    get("sam").setAttribute("aria-label", `Ten samples at beta ${beta}`);
    get("bce").textContent =
      `cross-entropy ${bce.toFixed(1)} nats (mean image ${state.mean.toFixed(0)})`;
    get("bce-bar").style.width = `${Math.min(100, 100 * bce / state.mean)}%`;
    get("kl").textContent = `KL ${kl.toFixed(kl < 1 ? 3 : 1)} nats`;
    get("kl-bar").style.width = `${Math.min(100, 100 * kl / 10)}%`;
    get("live").textContent = `${live} of 2 latents live`;
    map.setAttribute("aria-label",
      `Posterior means of 500 test images at beta ${beta}, both axes from -5 to 5`);
    draw(state.mu[i]);
  }

  for (const part of slider.querySelectorAll("[hidden]")) part.hidden = false;
  slider.querySelector(".no-script").remove();
  input.addEventListener("input", show);
  show();
});
