from larq_rep_cli.lce import main

if __name__ == "__main__":
    main()
