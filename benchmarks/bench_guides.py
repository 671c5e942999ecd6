#   Copyright 2026 - present The PyMC Developers
#
#   Licensed under the Apache License, Version 2.0 (the "License");
#   you may not use this file except in compliance with the License.
#   You may obtain a copy of the License at
#
#       http://www.apache.org/licenses/LICENSE-2.0
#
#   Unless required by applicable law or agreed to in writing, software
#   distributed under the License is distributed on an "AS IS" BASIS,
#   WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
#   See the License for the specific language governing permissions and
#   limitations under the License.
"""How near each guide comes to a posterior that is known.

    python benchmarks/bench_guides.py

The problems and the figures are those of ``tests/variational/guides/known_answers.py``: log p(y) - ELBO
in nats, with the standard error of its estimate, and the sd of a variable. They do not depend on the machine.
"""

import sys

from _common import ROOT

sys.path.insert(0, str(ROOT))

if __name__ == "__main__":
    from tests.variational.guides.known_answers import table

    for line in table():
        print(line, flush=True)
