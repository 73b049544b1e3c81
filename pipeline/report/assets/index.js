"use strict";
// What is not the same in every run of the same commit stands in a file of its own, which DVC does not keep.

load("here").then((here) => {
  document.getElementById("code").textContent = here.code;
  for (const [stage, time] of Object.entries(here.times)) {
    document.querySelector(`[data-stage="${stage}"]`).textContent = time;
  }
}, () => {});
