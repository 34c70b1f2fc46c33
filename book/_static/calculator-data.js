// Made by tools/calculator_data.py: β* and the information budget in nats (null: no bound) of the
// training images, pixels in [0, 1].
const DATA = {
  "mnist": {
    "title": "MNIST",
    "gaussian": [5.116787190904343, 26.362518003982],
    "gaussian-shared": [76.08459075846307, null],
    "gaussian-per-pixel": [40.486967232414685, null],
    "bernoulli": [32.233441463379734, 160.2706763116047],
    "laplace": [17.843269668004847, 97.72810513717772],
    "continuous-bernoulli": [138416.0520095795, null],
    "poisson": [26.028148785939855, 102.03841642485656]
  },
  "fashion_mnist": {
    "title": "Fashion-MNIST",
    "gaussian": [19.80947633913284, 34.10813181572709],
    "gaussian-shared": [227.66747552571516, null],
    "gaussian-per-pixel": [173.1349863639768, null],
    "bernoulli": [90.67640045795697, 196.04313386244493],
    "laplace": [94.00951618434584, 164.25585143069665],
    "continuous-bernoulli": [14743.436456809834, null],
    "poisson": [57.57001087617941, 129.60554342255853]
  },
  "digits28": {
    "title": "digits28",
    "gaussian": [6.003905111910304, 18.480757778086947],
    "gaussian-shared": [127.35035205802545, null],
    "gaussian-per-pixel": [111.95576119407815, null],
    "bernoulli": [30.615750901389237, 101.89196797665352],
    "laplace": [30.496033715053407, 118.2363483409591],
    "continuous-bernoulli": [12762.363518622853, null],
    "poisson": [21.784874293848915, 61.578369083935826]
  }
};
