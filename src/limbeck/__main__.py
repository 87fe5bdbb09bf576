"""`python -m limbeck` is `limbeck`; torchrun starts it this way: `torchrun -m limbeck run recipe.yaml`."""

from limbeck.cli import main

if __name__ == "__main__":
    main()
